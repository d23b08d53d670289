"""The whole server as a process of its own, with a stand-in for vLLM.

Takes the flags of rerank-server. SIGUSR1 kills the engine, SIGUSR2 makes it stop half-way. The
metric `standin_longest_block_seconds` says how long the event loop stood still since it was last
read.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import Gauge

from rerank_server.__main__ import run
from rerank_server.engines import Engine
from rerank_server.errors import EngineFailed
from rerank_server.settings import Settings
from rerank_server.tokens import Prompt
from standin_engine import StandInEngine

LOAD_SECONDS = "STANDIN_LOAD_SECONDS"
PAIRS_PER_SECOND = "STANDIN_PAIRS_PER_SECOND"

TICK_SECONDS = 0.005

signals: set[int] = set()


class Ticker:
    """Looks at the clock all the time, and notes when it could not."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._task = asyncio.create_task(self._run())
        gauge = Gauge("standin_longest_block_seconds", "Longest time without a turn.")
        gauge.set_function(self._read)

    async def _run(self) -> None:
        while True:
            before, waited = time.monotonic(), waited_for_a_cpu()
            await asyncio.sleep(TICK_SECONDS)
            block = time.monotonic() - before - TICK_SECONDS
            if block > TICK_SECONDS:
                # What other processes on this machine take is no fault of the server.
                block -= waited_for_a_cpu() - waited
            self._longest = max(self._longest, block)

    def _read(self) -> float:
        longest, self._longest = self._longest, 0.0
        return longest


def waited_for_a_cpu() -> float:
    """Return the seconds that the threads of this process were ready to run and did not."""
    files = Path("/proc/self/task").glob("*/schedstat")
    return sum(int(file.read_text().split()[1]) for file in files) / 1e9


class DeviceEngine(StandInEngine):
    """Scores so many pairs a second, one call after the other, as a device does."""

    def __init__(self, model: Path, pairs_per_second: float) -> None:
        super().__init__(model)
        self._pairs_per_second = pairs_per_second
        self._free_at = 0.0
        self._ticker: Ticker | None = None

    @property
    def alive(self) -> bool:
        """False after the first SIGUSR1."""
        return signal.SIGUSR1 not in signals

    @alive.setter
    def alive(self, _: bool) -> None: ...

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Take the time that so many prompts take."""
        self._ticker = self._ticker or Ticker()
        end = max(self._free_at, time.monotonic()) + len(prompts) / self._pairs_per_second
        self._free_at = end
        # A signal handler changes what is waited for.
        while self.alive and (time.monotonic() < end or signal.SIGUSR2 in signals):  # noqa: ASYNC110
            await asyncio.sleep(max(0.001, min(end - time.monotonic(), 0.05)))
        if not self.alive:
            raise EngineFailed("the worker at /secret/path died")
        return await super().score(prompts)


def load(settings: Settings) -> list[Engine]:
    """Pretend to load the model."""
    time.sleep(float(os.environ.get(LOAD_SECONDS, "0")))
    pairs_per_second = float(os.environ.get(PAIRS_PER_SECOND, "100000"))
    return [DeviceEngine(Path(settings.model), pairs_per_second)]


if __name__ == "__main__":
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, _: signals.add(number))
    sys.exit(run(sys.argv[1:], load))
