"""Keys to work on: one worker per key, several keys at once, repeats collapse, failures wait."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from rerank_operator.metrics import Metrics

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

# What happens to children comes in bursts: a rollout changes its Deployment several times at once,
# and each of its pods.
SETTLE_SECONDS = 0.1
BASE_SECONDS = 0.5
# Quota freed or a foreign object removed tells us nothing: this is the longest it goes unseen.
CAP_SECONDS = 60.0


class WorkQueue(Generic[K]):
    """Calls `work(key)` for each key added, until it returns True.

    Keys may be added before `run` is called: they wait for it.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[bool]],
        base_seconds: float = BASE_SECONDS,
        metrics: Metrics | None = None,
    ) -> None:
        self._work = work
        self._base_seconds = base_seconds
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: dict[K, float] = {}
        self._running: dict[K, float] = {}
        self._again: dict[K, bool] = {}
        self._failures: dict[K, int] = {}
        self._waiting: dict[K, asyncio.TimerHandle] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._metrics = metrics or Metrics()
        self._metrics.depth.set_function(lambda: len(self._queued))
        self._metrics.active_workers.set_function(lambda: len(self._running))
        self._metrics.unfinished_seconds.set_function(lambda: sum(self._ages()))
        self._metrics.longest_running_seconds.set_function(self.longest_running_seconds)

    def add(self, key: K, urgent: bool = False) -> None:
        """Ask for one more call after now: soon, for what else may come, and at once if `urgent`.

        A key that backs off keeps waiting, since its own failing writes may be what is heard here;
        `urgent` ends the wait, because what was asked for has changed.
        """
        if urgent and (handle := self._waiting.pop(key, None)):
            handle.cancel()
        if key in self._running:
            self._again[key] = urgent or self._again.get(key, False)
        elif key not in self._waiting and key not in self._queued:
            if urgent:
                self._enqueue(key)
            else:
                self._wait(key, SETTLE_SECONDS)

    async def run(self, workers: int) -> None:
        """Work until cancelled, on at most `workers` keys at once."""
        self._metrics.max_concurrent_reconciles.set(workers)
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._worker(), name=f"worker {number}")

    async def drain(self, seconds: float) -> bool:
        """Begin no more calls. Return whether those under way ended within `seconds`."""
        self._draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def longest_running_seconds(self) -> float:
        """Return how long the oldest call now running has been at it; 0 without one."""
        return max(self._ages(), default=0.0)

    def _ages(self) -> list[float]:
        now = asyncio.get_running_loop().time()
        return [now - started for started in self._running.values()]

    async def _worker(self) -> None:
        clock = asyncio.get_running_loop().time
        while not self._draining:
            key = await self._ready.get()
            if self._draining:
                return
            started = self._running[key] = clock()
            self._metrics.queue_seconds.observe(started - self._queued.pop(key))
            self._idle.clear()
            try:
                settled = await self._work(key)
            finally:
                del self._running[key]
                if not self._running:
                    self._idle.set()
            self._metrics.work_seconds.observe(clock() - started)
            self._metrics.count_pass(settled, clock() - started)
            again = self._again.pop(key, None)
            if settled:
                self._failures.pop(key, None)
            elif not again:
                self._back_off(key)
                continue
            if again is not None:
                self.add(key, again)

    def _back_off(self, key: K) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(CAP_SECONDS, self._base_seconds * 2 ** min(failures, 16)) * random.uniform(
            0.5, 1
        )
        log.debug("will try again", extra={"key": str(key), "seconds": round(delay, 2)})
        self._metrics.retries.inc()
        self._wait(key, delay)

    def _wait(self, key: K, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiting[key] = loop.call_later(seconds, self._resume, key)

    def _resume(self, key: K) -> None:
        del self._waiting[key]
        self._enqueue(key)

    def _enqueue(self, key: K) -> None:
        self._queued[key] = asyncio.get_running_loop().time()
        self._ready.put_nowait(key)
        self._metrics.adds.inc()
