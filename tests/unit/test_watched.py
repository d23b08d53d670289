import asyncio
from pathlib import Path

import pytest

from rerank_server.engines.watched import WatchedEngine
from rerank_server.errors import EngineFailed
from rerank_server.tokens import Prompt
from standin_engine import StandInEngine

PROMPTS = [Prompt([1, 2, 3])]


class Clock:
    now = 0.0


@pytest.fixture
def engine(tiny_model: Path) -> StandInEngine:
    return StandInEngine(tiny_model)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("rerank_server.engines.watched.time.monotonic", lambda: clock.now)
    return clock


async def given(watched: WatchedEngine) -> "asyncio.Task[list[float]]":
    """Start a call and let it reach the engine."""
    call = asyncio.create_task(watched.score(PROMPTS))
    await asyncio.sleep(0)
    return call


async def given_up(watched: WatchedEngine, clock: Clock, seconds: float) -> None:
    call = await given(watched)
    clock.now += seconds
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_engine_without_work_is_never_idle(engine: StandInEngine, clock: Clock) -> None:
    watched = WatchedEngine(engine)
    await watched.score(PROMPTS)

    clock.now += 1000

    assert watched.idle_seconds == 0


async def test_engine_is_idle_since_it_last_gave_something(
    engine: StandInEngine, clock: Clock
) -> None:
    watched = WatchedEngine(engine)
    engine.running.clear()
    first = await given(watched)
    clock.now += 30
    assert watched.idle_seconds == 30
    engine.running.set()
    await first
    engine.running.clear()

    second = await given(watched)
    clock.now += 10

    assert watched.idle_seconds == 10
    second.cancel()


async def test_time_between_calls_that_were_given_up_does_not_count(
    engine: StandInEngine, clock: Clock
) -> None:
    watched = WatchedEngine(engine)
    engine.running.clear()

    for _ in range(2):
        await given_up(watched, clock, seconds=10)
        clock.now += 1000

    assert watched.idle_seconds == 20


async def test_engine_whose_callers_all_give_up_early_works_nevertheless(
    engine: StandInEngine, clock: Clock
) -> None:
    watched = WatchedEngine(engine)
    engine.running.clear()

    for _ in range(20):
        await given_up(watched, clock, seconds=10)
        # As vLLM does with what it had begun.
        engine.steps += 1

    assert watched.idle_seconds == 0


async def test_failure_leaves_no_call_behind(engine: StandInEngine, clock: Clock) -> None:
    watched = WatchedEngine(engine)
    engine.broken = True
    with pytest.raises(EngineFailed):
        await watched.score(PROMPTS)

    clock.now += 1000

    assert watched.idle_seconds == 0
