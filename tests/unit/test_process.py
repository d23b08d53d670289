"""Listings and what they lead to; whole operators are in tests/apiserver."""

import asyncio
from collections.abc import AsyncIterator

import virtual_time
from builders import make_body
from rerank_operator.api import Manifest
from rerank_operator.cluster import Cluster, Fence
from rerank_operator.election import Election
from rerank_operator.errors import Refused, Unavailable
from rerank_operator.handlers import Memo
from rerank_operator.health import Watches
from rerank_operator.metrics import Metrics
from rerank_operator.names import PODS, RERANKERS, Kind
from rerank_operator.process import _lead, _list_all, _resync
from rerank_operator.settings import Settings
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue


class Cut(Cluster):
    """Has one RerankerService, and no answer for pods."""

    def __init__(self) -> None: ...

    async def pages(
        self, kind: Kind, namespace: str | None
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        if kind == PODS:
            raise Unavailable("none")
        yield [make_body()] if kind == RERANKERS else [], 1


class Queue(WorkQueue[Key]):
    """Notes what is added."""

    def __init__(self) -> None:
        self.added: list[Key] = []

    def add(self, key: Key, urgent: bool = False) -> None:
        self.added.append(key)


def test_what_a_later_listing_finds_does_not_wait_for_a_kind_that_cannot_be_listed() -> None:
    queue = Queue()
    memo = Memo(Store(), queue, Watches(), Metrics(), "operator_1")

    async def main() -> None:
        resync = asyncio.create_task(_resync(Cut(), memo, Settings()))
        await asyncio.sleep(3600)
        resync.cancel()

    virtual_time.run(main())

    assert queue.added == [Key("search", "demo")]


class Partial(Cut):
    """Lets nobody list one of the namespaces."""

    async def pages(
        self, kind: Kind, namespace: str | None
    ) -> AsyncIterator[tuple[list[Manifest], int]]:
        if namespace == "gone":
            raise Refused("forbidden")
        yield [make_body()] if kind == RERANKERS else [], 5


async def test_namespace_that_is_refused_keeps_no_other_from_being_listed() -> None:
    store = Store()
    known, old = make_body(), make_body()
    known["metadata"] |= {"namespace": "gone"}
    old["metadata"] |= {"name": "old"}
    for body in (known, old):
        store.put(body)

    async for _ in _list_all(Partial(), store, ["gone", "search"]):
        pass

    assert store.keys() == {Key("gone", "demo"), Key("search", "demo")}


def test_no_lease_is_taken_before_all_is_listed() -> None:
    asked: list[str] = []

    class Eager(Election):
        def __init__(self) -> None: ...

        async def acquire(self) -> None:
            asked.append("acquire")
            await asyncio.sleep(3600)

    async def main() -> None:
        synced = asyncio.Event()
        leading = asyncio.create_task(_lead(Eager(), synced, Queue(), 1))
        await asyncio.sleep(60)
        asked.append("synced")
        synced.set()
        await asyncio.sleep(60)
        leading.cancel()

    virtual_time.run(main())

    assert asked == ["synced", "acquire"]


def test_lease_that_nobody_has_asked_for_is_not_silent() -> None:
    election = Election(Cut(), "ns", "lease", "operator_1", Fence())

    assert election.silent_seconds() <= 0
