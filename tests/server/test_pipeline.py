"""What becomes of requests between admission and engine, with a stand-in for vLLM."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from rerank_server.engines.checkpoint import Golden
from rerank_server.errors import (
    BadRequest,
    DeadlineExceeded,
    EngineFailed,
    ModelUnusable,
    NotReady,
)
from rerank_server.metrics import Metrics
from rerank_server.pipeline import CHUNK_PAIRS, Pipeline
from rerank_server.ranking import Ranking
from rerank_server.settings import Settings
from rerank_server.tokens import Prompt
from standin_engine import StandInEngine


@pytest.fixture
def engine(tiny_model: Path) -> StandInEngine:
    return StandInEngine(tiny_model)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def pipeline(engine: StandInEngine, metrics: Metrics) -> Pipeline:
    pipeline = Pipeline(metrics, Settings(model="tiny", stall_seconds=1))
    await pipeline.start([engine])
    return pipeline


def waiting(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("rerank_queue_depth")


async def test_slices_come_back_in_the_order_of_the_request(
    pipeline: Pipeline, engine: StandInEngine
) -> None:
    documents = [f"{'word ' * (number % 90)}{number}" for number in range(3 * CHUNK_PAIRS + 7)]

    [together] = await pipeline.score([Ranking("q", documents)])

    alone = [await pipeline.score([Ranking("q", [document])]) for document in documents]
    assert together.logits == [one.logits[0] for [one] in alone]
    assert together.tokens == sum(one.tokens for [one] in alone)
    assert engine.calls > 3


async def test_rankings_of_a_batch_are_scored_each_with_its_own_query(pipeline: Pipeline) -> None:
    rankings = [Ranking("q", ["a", "b"]), Ranking("r", ["a"], "Find"), Ranking("s", ["c"] * 70)]

    batch = await pipeline.score(rankings)

    assert batch == [(await pipeline.score([ranking]))[0] for ranking in rankings]


async def test_cut_documents_are_told_by_their_place(pipeline: Pipeline) -> None:
    documents = ["a"] * 100 + ["word " * 900] + ["b"] * 30 + ["word " * 900]

    [scored] = await pipeline.score([Ranking("q", documents)])

    assert scored.cut == [100, 131]


async def test_document_that_may_not_be_cut_is_refused_by_its_place(pipeline: Pipeline) -> None:
    documents = ["a"] * 20 + ["word " * 900]

    with pytest.raises(BadRequest, match=r"documents\[20\] is longer than the \d+ tokens"):
        await pipeline.score([Ranking("q", documents, truncate=False)])


async def test_no_request_waits_for_the_whole_of_a_large_one(
    engine: StandInEngine, metrics: Metrics
) -> None:
    engine.seconds_per_prompt = 0.002
    pipeline = Pipeline(metrics, Settings(model="tiny"))
    await pipeline.start([engine])
    before = engine.prompts_done
    engine.entered.clear()
    large = asyncio.create_task(pipeline.score([Ranking("q", ["word " * 50] * 1000)]))
    await engine.entered.wait()

    await pipeline.score([Ranking("q", ["a", "b"])])

    assert not large.done()
    assert engine.prompts_done - before < 100
    large.cancel()


async def test_abandoned_work_leaves_engine_and_queue(
    pipeline: Pipeline, engine: StandInEngine, metrics: Metrics
) -> None:
    engine.running.clear()
    engine.entered.clear()
    request = asyncio.create_task(pipeline.score([Ranking("q", ["word " * 50] * 500)]))
    await engine.entered.wait()
    assert waiting(metrics) == 500

    request.cancel()
    await asyncio.wait_for(engine.cancelled.wait(), 0.2)
    with pytest.raises(asyncio.CancelledError):
        await request

    engine.running.set()
    assert waiting(metrics) == 0
    assert len(await pipeline.score([Ranking("q", ["a"])])) == 1


async def test_deadline_ends_a_request_and_names_what_is_left(
    pipeline: Pipeline, engine: StandInEngine, metrics: Metrics
) -> None:
    engine.running.clear()

    with pytest.raises(DeadlineExceeded, match=r"0\.05 s .* with 3 of 3 documents left"):
        await pipeline.score([Ranking("q", ["a", "b", "c"])], deadline_seconds=0.05)

    assert waiting(metrics) == 0
    assert engine.cancelled.is_set()


async def test_engine_that_dies_under_a_request_is_one_to_leave(
    pipeline: Pipeline, engine: StandInEngine
) -> None:
    engine.running.clear()
    engine.entered.clear()
    request = asyncio.create_task(pipeline.score([Ranking("q", ["a"] * 3)]))
    await engine.entered.wait()

    engine.alive = False
    engine.running.set()

    with pytest.raises(NotReady, match="the engine has died"):
        await request
    assert pipeline.dead == "the engine has died"


@pytest.mark.parametrize("logit", [float("nan"), float("inf"), float("-inf")])
async def test_logit_that_is_no_number_is_a_failure_and_no_score(
    logit: float, pipeline: Pipeline, engine: StandInEngine, metrics: Metrics
) -> None:
    before = metrics.registry.get_sample_value("rerank_scores_sum")
    engine.logits = [1.0, logit]

    with pytest.raises(EngineFailed, match="no number"):
        await pipeline.score([Ranking("q", ["a", "b"])])

    assert waiting(metrics) == 0
    assert metrics.registry.get_sample_value("rerank_scores_sum") == before


async def test_work_that_gets_nowhere_is_a_dead_engine(
    pipeline: Pipeline, engine: StandInEngine
) -> None:
    engine.running.clear()
    request = asyncio.create_task(pipeline.score([Ranking("q", ["a"])]))

    async with asyncio.timeout(5):
        while pipeline.dead is None:  # noqa: ASYNC110 - time itself is awaited
            await asyncio.sleep(0.05)

    assert "work waits, and for 1 s none of it was done" in pipeline.dead
    engine.running.set()
    await request
    assert pipeline.dead is None


async def test_engine_that_hangs_is_dead_though_every_caller_gives_up_early(
    pipeline: Pipeline, engine: StandInEngine
) -> None:
    engine.running.clear()

    for _ in range(4):
        assert pipeline.dead is None
        with pytest.raises(DeadlineExceeded):
            await pipeline.score([Ranking("q", ["a"])], deadline_seconds=0.3)

    assert "work waits, and for 1 s none of it was done" in (pipeline.dead or "")
    engine.running.set()
    await pipeline.score([Ranking("q", ["a"])])
    assert pipeline.dead is None


async def test_engine_that_hangs_on_its_first_prompts_is_dead(
    engine: StandInEngine, metrics: Metrics
) -> None:
    engine.running.clear()
    pipeline = Pipeline(metrics, Settings(model="tiny", stall_seconds=1))
    starting = asyncio.create_task(pipeline.start([engine]))

    async with asyncio.timeout(5):
        while pipeline.dead is None:  # noqa: ASYNC110 - time itself is awaited
            await asyncio.sleep(0.05)

    engine.running.set()
    await starting
    assert pipeline.unready is None


async def test_easy_pairs_in_the_wrong_order_are_a_warning(
    engine: StandInEngine, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    engine.logits = [-1.0, 1.0]
    pipeline = Pipeline(metrics, Settings(model="tiny"))

    await pipeline.start([engine])

    assert pipeline.unready is None
    assert "above the answer" in caplog.text
    result = metrics.registry.get_sample_value("rerank_score_check", {"result": "wrong_order"})
    assert result == 1


@pytest.mark.parametrize(
    ("logits", "golden", "reason"),
    [
        ([-1.0, 1.0], [], "above the answer"),
        ([float("nan"), 1.0], [], "no numbers"),
        ([1.0, 1.0], [], "one score"),
        ([1.0, -1.0], [Golden(query="q", document="d", score=0.2)], "0.731 instead of 0.200"),
    ],
)
async def test_unusable_scores_are_named(
    logits: list[float],
    golden: list[Golden],
    reason: str,
    engine: StandInEngine,
    metrics: Metrics,
) -> None:
    engine.logits = logits
    engine.golden = golden
    pipeline = Pipeline(metrics, Settings(model="tiny", score_check="enforce"))

    with pytest.raises(ModelUnusable, match=reason):
        await pipeline.start([engine])

    assert pipeline.unready == "the model is being checked"


async def test_golden_scores_that_hold_pass(engine: StandInEngine, metrics: Metrics) -> None:
    engine.logits = [1.0, -1.0]
    engine.golden = [Golden(query="q", document="d", score=0.73)]
    pipeline = Pipeline(metrics, Settings(model="tiny"))

    await pipeline.start([engine])

    assert metrics.registry.get_sample_value("rerank_score_check", {"result": "passed"}) == 1


class WrongAlone(StandInEngine):
    """Scores a pair that comes alone, as golden ones do, otherwise than one among others."""

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return the logits, or another one."""
        logits = await super().score(prompts)
        return logits if len(prompts) > 1 else [-logits[0]]


@pytest.mark.parametrize(
    ("kind", "logits", "reason"),
    [
        (StandInEngine, [float("nan"), -1.0], "no numbers"),
        (StandInEngine, [1.0, -0.5], "the same pair different scores"),
        (WrongAlone, [1.0, -1.0], "0.269 instead of 0.731"),
    ],
)
async def test_each_engine_is_checked(
    kind: type[StandInEngine], logits: list[float], reason: str, tiny_model: Path, metrics: Metrics
) -> None:
    engines = [StandInEngine(tiny_model), StandInEngine(tiny_model), kind(tiny_model)]
    for engine in engines:
        engine.logits = [1.0, -1.0]
        engine.golden = [Golden(query="q", document="d", score=0.731)]
    engines[2].logits = logits
    pipeline = Pipeline(metrics, Settings(model="tiny"))

    with pytest.raises(ModelUnusable, match=reason):
        await pipeline.start(engines)


async def test_large_request_is_spread_over_all_engines(tiny_model: Path, metrics: Metrics) -> None:
    engines = [StandInEngine(tiny_model) for _ in range(3)]
    pipeline = Pipeline(metrics, Settings(model="tiny"))
    await pipeline.start(engines)
    documents = [f"{'word ' * 50}{number}" for number in range(300)]
    for engine in engines:
        engine.running.clear()
        engine.entered.clear()

    request = asyncio.create_task(pipeline.score([Ranking("q", documents)]))
    async with asyncio.timeout(5):
        await asyncio.gather(*(engine.entered.wait() for engine in engines))
    for engine in engines:
        engine.running.set()

    [together] = await request
    [alone] = await pipeline.score([Ranking("q", documents[-1:])])
    assert together.logits[-1] == alone.logits[0]


async def test_engine_that_hangs_is_told_though_another_works(
    tiny_model: Path, metrics: Metrics
) -> None:
    engines = [StandInEngine(tiny_model) for _ in range(2)]
    pipeline = Pipeline(metrics, Settings(model="tiny", stall_seconds=1))
    await pipeline.start(engines)
    engines[0].running.clear()
    engines[0].entered.clear()
    hanging = asyncio.create_task(pipeline.score([Ranking("q", ["a"])]))
    await engines[0].entered.wait()

    async with asyncio.timeout(5):
        while pipeline.dead is None:
            await pipeline.score([Ranking("q", ["b"])])
            await asyncio.sleep(0.05)

    assert "work waits, and for 1 s none of it was done" in pipeline.dead
    engines[0].running.set()
    await hanging
    assert pipeline.dead is None


async def test_engine_that_dies_ends_the_work_of_the_others(
    tiny_model: Path, metrics: Metrics
) -> None:
    engines = [StandInEngine(tiny_model) for _ in range(2)]
    pipeline = Pipeline(metrics, Settings(model="tiny"))
    await pipeline.start(engines)

    engines[1].alive = False

    assert pipeline.dead == "the engine has died"
    with pytest.raises(NotReady, match="the engine has died"):
        await pipeline.score([Ranking("q", ["a"])])


async def test_metrics_tell_what_is_served(pipeline: Pipeline, metrics: Metrics) -> None:
    [model] = [
        metric for metric in metrics.registry.collect() if metric.name == "rerank_model_info"
    ]

    [sample] = model.samples
    assert sample.value == 1
    assert sample.labels["model"] == "tiny"
    assert sample.labels["family"] == "qwen3-reranker"
