"""What is tried on a loaded model before the first request: are its scores right, and how fast?"""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Sequence
from typing import Literal, NamedTuple

from rerank_server.engines import Engine
from rerank_server.errors import BadRequest, ModelUnusable
from rerank_server.ranking import relevance
from rerank_server.tokens import Prompt

log = logging.getLogger(__name__)

QUERY = "What is the capital of France?"
# The first one answers the query: no reranker is too small to see that.
DOCUMENTS = (
    "Paris is the capital of France.",
    "Bread is made of flour, water, salt and yeast.",
)
# Two passes differ a little: the second finds the query in the prefix cache, and 16-bit sums
# depend on what else is in the batch.
TOLERANCE = 0.02
# Weights in fewer bits, and activations rounded to what else is in the batch: seen with fp8.
QUANTISED_TOLERANCE = 0.1
# Golden scores are those of 32 bits; a wrong template or head is further off than 16 bits.
GOLDEN_TOLERANCE = 0.05

SPEED_DOCUMENT = "water " * 60
SPEED_PAIRS = (4, 16, 64, 256)
# Long enough to tell; a large model on a CPU takes longer for a few pairs.
SPEED_SECONDS = 0.5
PROBE_PAIRS = 2
PROBE_TRIES = 5


class Speed(NamedTuple):
    """What all engines do in a second with much to do, and the time of a small request."""

    pairs: float
    tokens: float
    small_seconds: float


async def check_scores(
    engines: Sequence[Engine], enforce_order: bool, quantised: bool
) -> Literal["passed", "wrong_order"]:
    """Have each engine score easy pairs twice, and the golden ones if the model brings any.

    Raises:
        EngineFailed: the engine broke on its first prompts.
        ModelUnusable: scores are not finite, all alike or not reproducible, or differ from the
            golden ones; or easy pairs are in the wrong order, if that is enforced.
    """
    passes = [await _scores(engine, QUERY, DOCUMENTS, None) for engine in engines for _ in range(2)]
    if not all(math.isfinite(score) for scores in passes for score in scores):
        raise ModelUnusable(
            "the model gives scores that are no numbers: set RERANK_DTYPE to float32"
        )
    tolerance = QUANTISED_TOLERANCE if quantised else TOLERANCE
    if max(max(scores) - min(scores) for scores in zip(*passes, strict=True)) > tolerance:
        remedy = "unset RERANK_QUANTIZATION" if quantised else "set RERANK_DTYPE to float32"
        raise ModelUnusable(f"the model gives the same pair different scores: {remedy}")
    if any(len(set(scores)) == 1 for scores in passes):
        raise ModelUnusable(
            "the model gives different pairs one score: its weights do not fit its config.json"
        )
    for engine, golden in itertools.product(engines, engines[0].golden):
        [score] = await _scores(engine, golden.query, [golden.document], golden.instruction)
        if abs(score - golden.score) > GOLDEN_TOLERANCE:
            raise ModelUnusable(
                f"the model scores a pair of its golden.json {score:.3f} instead of "
                f"{golden.score:.3f}: weights, tokenizer or RERANK_FAMILY do not belong together"
            )
    if all(first > second for first, second in passes):
        return "passed"
    text = "the model ranks a document about bread above the answer to a question about France"
    if enforce_order:
        raise ModelUnusable(f"{text}: choose another, or set RERANK_SCORE_CHECK to warn")
    log.warning(text)
    return "wrong_order"


async def measure_speed(engines: Sequence[Engine]) -> Speed:
    """Score pairs of about a hundred tokens: a few on one engine, then more and more on each.

    The best of several times counts, since the first steps of an engine are slow, and so are those
    during which something else ran.
    """
    numbers = itertools.count()

    async def seconds_for(pairs: int, some: Sequence[Engine]) -> tuple[float, int]:
        parts = []
        for engine in some:
            # No two documents alike, or the prefix cache would do the work.
            documents = [f"{next(numbers)} {SPEED_DOCUMENT}" for _ in range(pairs)]
            parts.append(await asyncio.to_thread(_prompts, engine, QUERY, documents, None))
        started = time.perf_counter()
        await asyncio.gather(
            *(engine.score(prompts) for engine, prompts in zip(some, parts, strict=True))
        )
        tokens = sum(len(prompt.ids) for prompts in parts for prompt in prompts)
        return time.perf_counter() - started, tokens

    alone = engines[:1]
    small_seconds = min([(await seconds_for(PROBE_PAIRS, alone))[0] for _ in range(PROBE_TRIES)])
    best = Speed(0, 0, small_seconds)
    for pairs in SPEED_PAIRS:
        seconds, tokens = await seconds_for(pairs, engines)
        speed = Speed(len(engines) * pairs / seconds, tokens / seconds, small_seconds)
        best = max(best, speed)
        if seconds >= SPEED_SECONDS:
            break
    return best


def _prompts(
    engine: Engine, query: str, documents: Sequence[str], instruction: str | None
) -> list[Prompt]:
    question = engine.tokenizer.question(query, instruction)
    return engine.tokenizer.pairs(question, documents).prompts


async def _scores(
    engine: Engine, query: str, documents: Sequence[str], instruction: str | None
) -> list[float]:
    try:
        prompts = await asyncio.to_thread(_prompts, engine, query, documents, instruction)
    except BadRequest as error:
        raise ModelUnusable(
            "the template and RERANK_INSTRUCTION leave no room for a query and a document: "
            "shorten the instruction, or raise RERANK_MAX_MODEL_LEN"
        ) from error
    return [relevance(logit) for logit in await engine.score(prompts)]
