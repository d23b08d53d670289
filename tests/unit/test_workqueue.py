import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from rerank_operator.metrics import Metrics
from rerank_operator.workqueue import WorkQueue


class Work:
    """Notes each call; `settle` decides what it returns, and `gate` when."""

    def __init__(self, settle: Callable[[str, int], bool] = lambda key, call: True) -> None:
        self.calls: list[str] = []
        self.called = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        self._settle = settle

    async def __call__(self, key: str) -> bool:
        async with self.called:
            self.calls.append(key)
            self.called.notify_all()
        number = self.calls.count(key)
        await self.gate.wait()
        return self._settle(key, number)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5), self.called:
            await self.called.wait_for(lambda: len(self.calls) >= count)


@asynccontextmanager
async def running(queue: WorkQueue[str], workers: int = 4) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(workers))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_repeats_collapse_while_waiting() -> None:
    work = Work()
    queue = WorkQueue(work)
    for _ in range(50):
        queue.add("a")

    async with running(queue):
        await work.until(1)
        queue.add("b")
        await work.until(2)

    assert work.calls == ["a", "b"]


async def test_burst_is_waited_for_unless_it_is_urgent() -> None:
    work = Work()
    queue = WorkQueue(work)

    async with running(queue):
        queue.add("burst")
        queue.add("urgent", urgent=True)
        await work.until(1)
        queue.add("burst")
        await work.until(2)
        queue.add("other", urgent=True)
        await work.until(3)

    assert work.calls == ["urgent", "burst", "other"]


async def test_urgent_addition_during_a_call_is_not_waited_for() -> None:
    work = Work()
    work.gate.clear()
    queue = WorkQueue(work)
    queue.add("a", urgent=True)

    async with running(queue):
        await work.until(1)
        queue.add("a", urgent=True)
        queue.add("burst")
        work.gate.set()
        await work.until(3)

    assert work.calls == ["a", "a", "burst"]


async def test_additions_during_a_call_give_one_more_call_after_it() -> None:
    work = Work()
    work.gate.clear()
    queue = WorkQueue(work)
    queue.add("a")

    async with running(queue):
        await work.until(1)
        for _ in range(50):
            queue.add("a")
        assert work.calls == ["a"]
        work.gate.set()
        await work.until(2)
        queue.add("b")
        await work.until(3)

    assert work.calls == ["a", "a", "b"]


async def test_slow_key_does_not_hold_up_others() -> None:
    work = Work()
    work.gate.clear()
    queue = WorkQueue(work)

    async with running(queue, workers=2):
        queue.add("slow")
        await work.until(1)
        queue.add("other")
        await work.until(2)

    assert work.calls == ["slow", "other"]


async def test_unsettled_key_is_tried_until_it_settles() -> None:
    work = Work(lambda key, call: call == 3)
    queue = WorkQueue(work, base_seconds=0.01)
    queue.add("a")

    async with running(queue):
        await work.until(3)
        queue.add("b")
        await work.until(4)

    assert work.calls == ["a", "a", "a", "b"]


async def test_key_that_backs_off_waits_unless_it_is_urgent() -> None:
    work = Work(lambda key, call: key != "a")
    queue = WorkQueue(work, base_seconds=60)
    queue.add("a")

    async with running(queue):
        await work.until(1)
        queue.add("b")
        await work.until(2)
        queue.add("a")
        queue.add("c")
        await work.until(3)
        queue.add("a", urgent=True)
        await work.until(4)

    assert work.calls == ["a", "b", "c", "a"]


async def test_urgent_addition_during_a_failing_call_is_not_delayed() -> None:
    work = Work(lambda key, call: False)
    work.gate.clear()
    queue = WorkQueue(work, base_seconds=60)
    queue.add("a")

    async with running(queue):
        await work.until(1)
        queue.add("a", urgent=True)
        work.gate.set()
        await work.until(2)

    assert work.calls == ["a", "a"]


async def test_oldest_call_is_measured() -> None:
    work = Work()
    work.gate.clear()
    queue = WorkQueue(work)
    assert queue.longest_running_seconds() == 0

    async with running(queue):
        queue.add("a")
        await work.until(1)
        await asyncio.sleep(0)
        assert queue.longest_running_seconds() > 0


async def test_drained_queue_ends_what_runs_and_begins_nothing() -> None:
    work = Work()
    work.gate.clear()
    queue = WorkQueue(work)
    queue.add("a")

    async with running(queue, workers=1):
        await work.until(1)
        queue.add("b")
        assert not await queue.drain(0.01)
        work.gate.set()
        assert await queue.drain(5)

    assert work.calls == ["a"]


async def test_queue_that_never_ran_is_drained() -> None:
    queue = WorkQueue(Work())
    queue.add("a")

    assert await queue.drain(5)


async def test_keys_passes_and_retries_are_counted() -> None:
    metrics = Metrics()
    work = Work(lambda key, call: call == 2)
    queue = WorkQueue(work, base_seconds=0.01, metrics=metrics)
    queue.add("a")
    queue.add("a")

    async with running(queue):
        await work.until(2)
        await queue.drain(5)

        values = {
            name: metrics.registry.get_sample_value(name, labels)
            for name, labels in [
                ("workqueue_adds_total", {"name": "rerankerservice"}),
                ("workqueue_retries_total", {"name": "rerankerservice"}),
                ("workqueue_depth", {"name": "rerankerservice"}),
                ("workqueue_queue_duration_seconds_count", {"name": "rerankerservice"}),
                ("workqueue_work_duration_seconds_count", {"name": "rerankerservice"}),
                ("controller_runtime_active_workers", {"controller": "rerankerservice"}),
                ("controller_runtime_reconcile_errors_total", {"controller": "rerankerservice"}),
                (
                    "controller_runtime_reconcile_time_seconds_count",
                    {"controller": "rerankerservice"},
                ),
            ]
        }
    assert list(values.values()) == [2, 1, 0, 2, 2, 0, 1, 2]
