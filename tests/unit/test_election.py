import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rerank_operator.api import Manifest
from rerank_operator.cluster import Fence
from rerank_operator.election import Election
from rerank_operator.errors import LeaseLost, NotFound, Refused, Unavailable
from virtual_time import run


def now() -> float:
    return asyncio.get_running_loop().time()


class FakeLeases:
    """One Lease, as an API server keeps it; slow, hanging or away as it is told."""

    def __init__(self) -> None:
        self.lease: Manifest | None = None
        self.version = 0
        self.away: Exception | None = None
        self.seconds = 0.01
        self.renewed = asyncio.Event()

    async def read_lease(self, namespace: str, name: str, seconds: float) -> Manifest | None:
        await self._answer(seconds)
        return self.lease

    async def write_lease(self, lease: Manifest, seconds: float) -> Manifest:
        await self._answer(seconds)
        held = self.lease["metadata"]["resourceVersion"] if self.lease else None
        if lease["metadata"].get("resourceVersion") != held:
            raise Unavailable("409")
        self.put(lease)
        assert self.lease
        return self.lease

    def put(self, lease: Manifest) -> None:
        """Keep a Lease as the next version."""
        self.version += 1
        version = {"resourceVersion": str(self.version)}
        self.lease = lease | {"metadata": lease["metadata"] | version}
        self.renewed.set()

    async def _answer(self, seconds: float) -> None:
        if self.seconds > seconds:
            await asyncio.sleep(seconds)
            raise Unavailable("TimeoutError")
        await asyncio.sleep(self.seconds)
        if self.away:
            raise self.away


class Candidate:
    """An operator as far as elections go. `cut_off`: no call of its own is answered."""

    def __init__(self, leases: FakeLeases, drift: float = 0) -> None:
        def clock() -> float:
            return now() + drift

        self.fence = Fence(clock)
        self.identity = f"operator_{id(self)}"
        self.election = Election(
            self, "rerank-system", "rerank-operator", self.identity, self.fence, clock
        )
        self.task = asyncio.create_task(self._run())
        self.leading_since = float("inf")
        self.cut_off = False
        self._leases = leases

    async def read_lease(self, namespace: str, name: str, seconds: float) -> Manifest | None:
        await self._require_link(seconds)
        return await self._leases.read_lease(namespace, name, seconds)

    async def write_lease(self, lease: Manifest, seconds: float) -> Manifest:
        await self._require_link(seconds)
        return await self._leases.write_lease(lease, seconds)

    async def _require_link(self, seconds: float) -> None:
        if self.cut_off:
            await asyncio.sleep(seconds)
            raise Unavailable("TimeoutError")

    async def _run(self) -> None:
        await self.election.acquire()
        self.leading_since = now()
        await self.election.hold()

    def holds(self, leases: FakeLeases) -> bool:
        return bool(leases.lease and leases.lease["spec"].get("holderIdentity") == self.identity)


@asynccontextmanager
async def candidates(leases: FakeLeases, *drifts: float) -> AsyncIterator[list[Candidate]]:
    """The first of them leads when the block begins."""
    started: list[Candidate] = []
    try:
        for drift in drifts:
            started.append(Candidate(leases, drift))
            await asyncio.sleep(1)
        yield started
    finally:
        for candidate in started:
            candidate.task.cancel()
        await asyncio.gather(*(one.task for one in started), return_exceptions=True)


def test_lease_that_is_not_there_is_made_and_held() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0) as (one,):
            await asyncio.sleep(60)

            assert leases.lease
            spec = leases.lease["spec"]
            assert spec.pop("acquireTime") < spec.pop("renewTime")
            assert spec == {
                "holderIdentity": one.identity,
                "leaseDurationSeconds": 15,
                "leaseTransitions": 0,
            }
            assert one.fence.is_open()
            assert 25 <= leases.version <= 31

    run(main())


@pytest.mark.parametrize("drift", [0, 3600, -3600])
def test_other_acts_within_seventeen_seconds_of_a_kill_whatever_its_clock(drift: float) -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0, drift) as (one, other):
            await asyncio.sleep(60)
            # Right after a renewal: the longest that a dead one's Lease can last.
            leases.renewed.clear()
            await leases.renewed.wait()
            one.task.cancel()
            killed = now()
            assert not other.fence.is_open()

            await asyncio.sleep(30)

            assert 14 < other.leading_since - killed < 16.5
            assert other.holds(leases)
            assert leases.lease and leases.lease["spec"]["leaseTransitions"] == 1

    run(main())


def test_released_lease_is_taken_at_the_next_look() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0, 0) as (one, other):
            one.task.cancel()

            await one.election.release()

            released = now()
            assert not one.fence.is_open()
            await asyncio.sleep(5)
            assert other.leading_since - released <= 1.1

    run(main())


def test_release_leaves_the_lease_of_another_alone() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0, 0) as (one, other):
            await other.election.release()

            assert one.holds(leases)

    run(main())


def test_absent_api_server_ends_nothing_and_the_holder_stays_the_holder() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0, 0) as (one, other):
            leases.away = Unavailable("connection refused")
            await asyncio.sleep(7)
            assert one.fence.is_open()
            await asyncio.sleep(120)
            assert not one.fence.is_open()
            assert one.election.silent_seconds() > 120

            leases.away = None
            await asyncio.sleep(60)

            assert one.fence.is_open()
            assert one.election.silent_seconds() < 10
            assert not one.task.done()
            assert not other.fence.is_open()

    run(main())


def test_holder_that_is_cut_off_writes_nothing_and_ends_when_it_sees_another() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0, 0) as (one, other):
            one.cut_off = True
            await asyncio.sleep(11)
            assert one.fence.seconds() == 0
            await asyncio.sleep(7)
            assert other.fence.is_open()

            one.cut_off = False
            await asyncio.sleep(10)

            with pytest.raises(LeaseLost, match="rerank-system/rerank-operator"):
                one.task.result()
            assert not one.fence.is_open()
            assert other.fence.is_open()

    run(main())


def test_call_that_hangs_once_costs_no_lease() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0) as (one,):
            leases.seconds = 100
            await asyncio.sleep(4)
            leases.seconds = 0.01

            for _ in range(100):
                await asyncio.sleep(0.1)
                assert one.fence.is_open()

    run(main())


def test_lease_deleted_under_its_holder_is_not_taken_at_once() -> None:
    async def main() -> None:
        leases = FakeLeases()
        async with candidates(leases, 0, 0) as (one, other):
            leases.lease = None

            await asyncio.sleep(60)

            assert one.holds(leases)
            assert one.fence.is_open()
            assert not other.fence.is_open()

    run(main())


@pytest.mark.parametrize("error", [Refused("forbidden"), NotFound("no such namespace")])
def test_refusal_is_waited_out(error: Exception) -> None:
    async def main() -> None:
        leases = FakeLeases()
        leases.away = error
        async with candidates(leases, 0) as (one,):
            await asyncio.sleep(60)
            leases.away = None

            await asyncio.sleep(3)

            assert one.fence.is_open()

    run(main())


@pytest.mark.parametrize("seed", range(10))
def test_at_no_time_may_two_write(seed: int) -> None:
    """Three operators for half an hour: killed, cut off, answered late, with clocks that differ."""

    async def main() -> None:
        dice = random.Random(seed)
        leases = FakeLeases()
        # Of each that ever was: until when a write that it began may take.
        busy_until: dict[Candidate, float] = {}
        async with candidates(leases, 0, 1e6, -1e6) as crowd:
            while now() < 1800:
                await asyncio.sleep(dice.choice([0.05, 0.3, 2]))
                for index, candidate in enumerate(crowd):
                    if candidate.task.done() or dice.random() < 0.002:
                        candidate.task.cancel()
                        await asyncio.gather(candidate.task, return_exceptions=True)
                        crowd[index] = Candidate(leases, dice.uniform(-1e6, 1e6))
                    elif candidate.fence.is_open():
                        others = [until for one, until in busy_until.items() if one != candidate]
                        assert now() >= max(others, default=0)
                        busy_until[candidate] = now() + candidate.fence.seconds()
                    candidate.cut_off = dice.random() < (0.9 if candidate.cut_off else 0.02)
                leases.seconds = dice.choice([0.01] * 9 + [0.5, 2.9, 100])
                leases.away = dice.choice([None] * 20 + [Unavailable("503"), Refused("403")])

        assert len(busy_until) > 3

    run(main())
