"""Failures that are the machine's or the caller's, told in one sentence."""


class LabError(Exception):
    """Something that the reader of the message can mend; shown without a traceback."""
