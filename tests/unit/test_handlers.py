from itertools import islice
from typing import Any

import kopf
import pytest

from builders import make_body
from rerank_operator.handlers import (
    STUCK_SECONDS,
    Backoffs,
    Memo,
    build_settings,
    on_reranker,
    probe,
)
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue


class Queue(WorkQueue[Key]):
    """Notes what is added, and says how long it has been busy."""

    def __init__(self, seconds: float = 0) -> None:
        self.added: list[tuple[Key, bool]] = []
        self.seconds = seconds

    def add(self, key: Key, urgent: bool = False) -> None:
        self.added.append((key, urgent))

    def longest_running_seconds(self) -> float:
        return self.seconds


def called(handler: Any, **arguments: Any) -> Any:
    """Call a handler with what it uses of the many arguments that kopf passes."""
    return handler(**arguments)


async def test_event_becomes_a_key() -> None:
    queue = Queue()
    memo = Memo(Store(), queue)
    body = make_body()

    await called(on_reranker, event={"type": "ADDED", "object": body}, memo=memo)

    assert queue.added == [(Key("search", "demo"), True)]
    assert memo.store.reranker(Key("search", "demo")) == body


async def test_only_another_generation_is_urgent() -> None:
    queue = Queue()
    memo = Memo(Store(), queue)
    bodies = [
        make_body(),
        make_body(version=2) | {"status": {"replicas": 1}},
        make_body(version=3, generation=2),
        make_body(version=4, uid="uid-2"),
    ]

    for body in bodies:
        await called(on_reranker, event={"type": "MODIFIED", "object": body}, memo=memo)

    assert [urgent for _, urgent in queue.added] == [True, False, True, True]


async def test_probe_fails_when_a_pass_does_not_end() -> None:
    assert await called(probe, memo=Memo(Store(), Queue())) == "ok"

    with pytest.raises(kopf.PermanentError):
        await called(probe, memo=Memo(Store(), Queue(seconds=STUCK_SECONDS + 1)))


def test_backoffs_start_anew_each_time_and_never_end() -> None:
    backoffs = Backoffs()

    delays = list(islice(backoffs, 10000))

    assert max(delays) <= 30
    assert next(iter(backoffs)) <= 0.5


def test_kopf_is_asked_for_nothing_but_watching() -> None:
    settings = build_settings()

    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert not settings.posting.enabled
