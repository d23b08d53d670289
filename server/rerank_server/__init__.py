"""The rerank server: one model behind HTTP."""

__version__ = "0.1.0"
