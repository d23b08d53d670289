"""The few failures that some caller handles differently."""


class OperatorError(Exception):
    """Base of the failures below."""


class SchemaError(OperatorError):
    """A model uses a construct that a CRD cannot express."""


class InvalidSpec(OperatorError):
    """A stored object that this version of the operator cannot read."""


class NotFound(OperatorError):
    """The API server has no such object, kind or namespace."""


class Refused(OperatorError):
    """The API server will not take this object: quota, policy, permission or validation."""


class Unavailable(OperatorError):
    """The API server could not answer now: overload, time-out or a lost connection."""


class Conflict(Unavailable):
    """The object is not, or no longer, in the version that a write is about."""


class LeaseLost(OperatorError):
    """Another operator is at work; this one may not write any more."""
