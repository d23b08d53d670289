"""Failures that some caller treats differently; each message is a sentence for a person."""


class BadRequest(Exception):
    """The caller's mistake. The message names the field, the limit and the remedy."""


class TooLarge(Exception):
    """The request is longer than the server reads. The message names the limit and the remedy."""


class NotReady(Exception):
    """No answer now, perhaps one later: the model is loading."""


class EngineFailed(Exception):
    """The engine broke while it worked on a request. Its message stays in the log."""


class ModelUnusable(Exception):
    """The model cannot be served at all. The message says what to change."""
