"""Findings, and the conditions that are made of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from rerank_operator import names
from rerank_operator.api import Condition
from rerank_operator.observed import OVER_QUOTA

# A condition's message is for reading: long logs and server answers are cut.
_MAX_MESSAGE = 1000


class Finding(NamedTuple):
    """Why something is as it is: a reason for machines and a sentence for people."""

    reason: str
    message: str


def merge(
    current: Sequence[Condition],
    findings: Mapping[str, tuple[bool, Finding]],
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return `current` with `findings` in it, sorted by type.

    `last_transition_time` moves only when `status` does. Alerts measure "not ready for ten
    minutes" from it, so a changed message must not restart the clock.
    """
    by_type = {condition.type: condition for condition in current}
    for name, (healthy, finding) in findings.items():
        status = "True" if healthy else "False"
        old = by_type.get(name)
        unchanged = old is not None and old.status == status
        by_type[name] = Condition(
            type=name,
            status="True" if healthy else "False",
            reason=finding.reason,
            message=finding.message[:_MAX_MESSAGE],
            observed_generation=generation,
            last_transition_time=old.last_transition_time
            if old is not None and unchanged
            else now.replace(microsecond=0),
        )
    return [by_type[name] for name in sorted(by_type)]


def refusal_reason(message: str, otherwise: str) -> str:
    """Tell a quota from other refusals."""
    return names.QUOTA_EXCEEDED if OVER_QUOTA in message else otherwise
