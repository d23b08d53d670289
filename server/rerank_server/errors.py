"""Failures that some caller treats differently; each message is a sentence for a person."""


class BadRequest(Exception):
    """The caller's mistake. The message names the field, the limit and the remedy."""

    def __init__(self, message: str, for_log: str | None = None) -> None:
        """`for_log` says the same without any text of the caller's, where the message has one."""
        super().__init__(message)
        self.for_log = for_log or message


class UnknownModel(Exception):
    """The request names another model than the one served, and that is not taken for an alias."""


class UnknownEncoding(Exception):
    """The body is compressed. The message names the encoding and the remedy."""


class Blocked(Exception):
    """A text of the request is not welcome here. The message names the field, not the text."""


class TooLarge(Exception):
    """The request brings more than the server takes. The message names the limit and the remedy."""


class TooSlow(Exception):
    """The request did not arrive in time."""


class Overloaded(Exception):
    """No room for this request now; there will be later."""

    def __init__(self, message: str, retry_after_seconds: int) -> None:
        """`retry_after_seconds` is when to try again."""
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(Exception):
    """The caller's own deadline passed before the answer was there."""


class NotReady(Exception):
    """No answer from this server now: the model is loading, or the engine has died."""


class EngineFailed(Exception):
    """The engine broke while it worked on a request. Its message stays in the log."""


class ModelUnusable(Exception):
    """The model cannot be served at all. The message says what to change."""
