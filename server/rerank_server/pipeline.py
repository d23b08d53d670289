"""One model on its way from loading to draining, and a request on its way through it."""

import asyncio
import math
from collections.abc import Sequence
from typing import NamedTuple

from rerank_server.engines import Engine
from rerank_server.errors import BadRequest, ModelUnusable, NotReady
from rerank_server.metrics import Metrics
from rerank_server.ranking import relevance
from rerank_server.tokens import Pairs, PairTokenizer

# Scored before the first request. No model is too small for these.
CHECK_QUERY = "What is the capital of France?"
CHECK_DOCUMENTS = (
    "Paris is the capital of France.",
    "Bread is made of flour, water, salt and yeast.",
)
# Two passes differ a little: the second finds the query in the prefix cache, and 16-bit sums
# depend on what else is in the batch.
CHECK_TOLERANCE = 0.02


class Scored(NamedTuple):
    """Scores in the order of the documents, and what they took."""

    scores: list[float]
    tokens: int
    truncated: int


class Pipeline:
    """Holds the engine and answers the two questions of health: alive? ready?"""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._engine: Engine | None = None
        self._unready: str | None = "the model is loading"
        self._draining = False

    @property
    def alive(self) -> bool:
        """False once the engine has broken; a model that still loads is alive."""
        return self._engine is None or self._engine.alive

    @property
    def unready(self) -> str | None:
        """Why no new work should come here, as a sentence; None when it should."""
        if not self.alive:
            return "the engine has died"
        if self._unready is None and self._draining:
            return "the server is draining"
        return self._unready

    async def start(self, engine: Engine) -> None:
        """Take over a loaded engine; ready afterwards if it passes the score check.

        Raises:
            EngineFailed: the engine broke on its first prompts.
            ModelUnusable: it failed the check, or its template leaves the check no room.
        """
        self._engine = engine
        self._unready = "the model is being checked"
        await _score_check(engine)
        self._unready = None

    def drain(self) -> None:
        """Ask for no new work. What still comes is served."""
        self._draining = True

    async def score(self, query: str, documents: Sequence[str], instruction: str | None) -> Scored:
        """Score every document against the query. Cancelling it frees the engine.

        Raises:
            BadRequest: the query leaves no room for a document.
            NotReady: the model is loading, or being checked.
            EngineFailed: the engine broke.
        """
        engine = self._engine
        if engine is None or self._unready:
            raise NotReady(f"{self._unready}: try again later")
        self._metrics.queue_depth.inc(len(documents))
        try:
            # A request of a thousand documents takes long enough to hold up a health probe.
            pairs = await asyncio.to_thread(
                _tokenize, engine.tokenizer, query, documents, instruction
            )
            logits = await engine.score(pairs.prompts)
        finally:
            self._metrics.queue_depth.dec(len(documents))
        tokens = sum(len(prompt.ids) for prompt in pairs.prompts)
        self._metrics.pairs.inc(len(documents))
        self._metrics.tokens.inc(tokens)
        self._metrics.truncated_documents.inc(len(pairs.cut))
        return Scored([relevance(logit) for logit in logits], tokens, len(pairs.cut))

    def close(self) -> None:
        """Stop the engine, if there is one."""
        if self._engine is not None:
            self._engine.close()


def _tokenize(
    tokenizer: PairTokenizer, query: str, documents: Sequence[str], instruction: str | None
) -> Pairs:
    return tokenizer.pairs(tokenizer.question(query, instruction), documents)


async def _score_check(engine: Engine) -> None:
    """Score easy pairs; raises `ModelUnusable` with what is wrong with them."""
    try:
        pairs = await asyncio.to_thread(
            _tokenize, engine.tokenizer, CHECK_QUERY, CHECK_DOCUMENTS, None
        )
    except BadRequest as error:
        raise ModelUnusable(
            "the template and RERANK_INSTRUCTION leave no room for a query and a document: "
            "shorten the instruction, or raise RERANK_MAX_MODEL_LEN"
        ) from error
    first, second = [await engine.score(pairs.prompts) for _ in range(2)]
    if not all(math.isfinite(score) for score in (*first, *second)):
        raise ModelUnusable(
            "the model gives scores that are no numbers: set RERANK_DTYPE to float32"
        )
    if max(abs(a - b) for a, b in zip(first, second, strict=True)) > CHECK_TOLERANCE:
        raise ModelUnusable(
            "the model gives the same pair different scores: set RERANK_DTYPE to float32"
        )
    if len(set(first)) == 1:
        raise ModelUnusable(
            "the model gives different pairs one score: its weights do not fit its config.json"
        )
