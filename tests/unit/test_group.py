import asyncio
import threading
from pathlib import Path

import pytest

from rerank_server.engines.group import EngineGroup
from rerank_server.errors import EngineFailed
from rerank_server.tokens import Prompt
from standin_engine import StandInEngine

SHORT, LONG = [Prompt([1])], [Prompt([1, 2, 3]), Prompt([4, 5])]


@pytest.fixture
def engines(tiny_model: Path) -> list[StandInEngine]:
    return [StandInEngine(tiny_model) for _ in range(3)]


@pytest.fixture
def group(engines: list[StandInEngine]) -> EngineGroup:
    return EngineGroup(engines)


async def given(group: EngineGroup, prompts: list[Prompt]) -> "asyncio.Task[list[float]]":
    """Start a call and let it reach an engine."""
    call = asyncio.create_task(group.score(prompts))
    await asyncio.sleep(0)
    return call


async def test_work_goes_to_the_engine_that_has_fewest_tokens(
    group: EngineGroup, engines: list[StandInEngine]
) -> None:
    for engine in engines:
        engine.running.clear()

    calls = [await given(group, prompts) for prompts in (LONG, SHORT, LONG, SHORT, SHORT)]

    assert [engine.calls for engine in engines] == [1, 3, 1]
    for engine in engines:
        engine.running.set()
    await asyncio.gather(*calls)
    assert [engine.tokens for engine in group.engines] == [0, 0, 0]


async def test_work_that_was_given_up_weighs_nothing(
    group: EngineGroup, engines: list[StandInEngine]
) -> None:
    engines[0].running.clear()
    abandoned = await given(group, LONG)
    abandoned.cancel()
    with pytest.raises(asyncio.CancelledError):
        await abandoned

    assert [engine.tokens for engine in group.engines] == [0, 0, 0]


async def test_engine_whose_callers_give_up_gets_no_more_while_others_are_free(
    group: EngineGroup, engines: list[StandInEngine]
) -> None:
    engines[0].running.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await group.score(SHORT)

    await group.score(SHORT)

    assert [engine.calls for engine in engines] == [1, 1, 0]
    engines[0].running.set()


async def test_engine_that_hangs_is_noticed_while_the_others_work(
    group: EngineGroup, engines: list[StandInEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("rerank_server.engines.watched.time.monotonic", lambda: now)
    engines[0].running.clear()
    hanging = await given(group, LONG)

    for _ in range(10):
        now += 3
        await group.score(SHORT)

    assert group.idle_seconds == 30
    assert engines[0].steps == 0
    assert engines[1].steps == 10
    hanging.cancel()


async def test_nothing_is_given_to_any_engine_once_one_has_died(
    group: EngineGroup, engines: list[StandInEngine]
) -> None:
    engines[2].alive = False

    with pytest.raises(EngineFailed):
        await group.score(SHORT)

    assert not group.alive
    assert [engine.calls for engine in engines] == [0, 0, 0]


def test_no_engine_waits_for_another_to_end(tiny_model: Path) -> None:
    together = threading.Barrier(3)

    class Slow(StandInEngine):
        def close(self) -> None:
            together.wait(timeout=5)
            super().close()

    engines = [Slow(tiny_model) for _ in range(3)]

    EngineGroup(engines).close()

    assert all(engine.closed for engine in engines)
