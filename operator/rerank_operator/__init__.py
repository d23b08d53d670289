"""The operator of RerankerService objects."""

__version__ = "0.1.0"
