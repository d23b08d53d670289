from itertools import islice
from typing import Any

from builders import make_body
from rerank_operator.handlers import Backoffs, Memo, build_settings, on_reranker
from rerank_operator.health import Watches
from rerank_operator.metrics import Metrics
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue


class Queue(WorkQueue[Key]):
    """Notes what is added."""

    def __init__(self) -> None:
        self.added: list[tuple[Key, bool]] = []

    def add(self, key: Key, urgent: bool = False) -> None:
        self.added.append((key, urgent))


def make_memo(queue: Queue) -> Memo:
    """Return a memo whose queue is this one."""
    return Memo(Store(), queue, Watches(), Metrics())


def called(handler: Any, **arguments: Any) -> Any:
    """Call a handler with what it uses of the many arguments that kopf passes."""
    return handler(**arguments)


async def test_event_becomes_a_key() -> None:
    queue = Queue()
    memo = make_memo(queue)
    body = make_body()

    await called(on_reranker, event={"type": "ADDED", "object": body}, memo=memo)

    assert queue.added == [(Key("search", "demo"), True)]
    assert memo.store.reranker(Key("search", "demo")) == body


async def test_only_another_generation_is_urgent() -> None:
    queue = Queue()
    memo = make_memo(queue)
    bodies = [
        make_body(),
        make_body(version=2) | {"status": {"replicas": 1}},
        make_body(version=3, generation=2),
        make_body(version=4, uid="uid-2"),
    ]

    for body in bodies:
        await called(on_reranker, event={"type": "MODIFIED", "object": body}, memo=memo)

    assert [urgent for _, urgent in queue.added] == [True, False, True, True]


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
