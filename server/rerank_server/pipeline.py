"""One model on its way from loading to draining, and a request on its way through it."""

import asyncio
import itertools
import logging
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from rerank_server import __version__
from rerank_server.admission import Queue, Work, check_size
from rerank_server.check import check_scores, measure_speed
from rerank_server.engines import Engine
from rerank_server.engines.group import EngineGroup
from rerank_server.errors import BadRequest, DeadlineExceeded, EngineFailed, NotReady
from rerank_server.metrics import Metrics
from rerank_server.patterns import BlockedPatterns
from rerank_server.ranking import Ranking, Scored, relevance
from rerank_server.scheduling import Turn, Window
from rerank_server.settings import Settings
from rerank_server.tokens import PairTokenizer, Prompt

log = logging.getLogger(__name__)

# What the engines are given to do at once, in times of a small request alone: more makes small
# requests wait, less leaves them idle between two steps. The bounds are those of each.
WINDOW_SMALL_TIMES = 3.0
WINDOW_TOKENS = (512, 65_536)
# Requests of no more pairs than this do not wait for larger ones.
SMALL_PAIRS = 16
# What is tokenised in one call, and in one go ahead of the engine.
BATCH_PAIRS = 16
CHUNK_PAIRS = 64
CHUNK_CHARS = 100_000


class _Place(NamedTuple):
    """A prompt, and where its logit goes."""

    prompt: Prompt
    ranking: int
    document: int
    cut: bool


class Pipeline:
    """Holds the engines and answers the two questions of health: alive? ready?"""

    def __init__(self, metrics: Metrics, settings: Settings) -> None:
        self._metrics = metrics
        self._settings = settings
        self._queue = Queue(settings.max_queued_pairs, metrics)
        self._blocked = BlockedPatterns(settings.blocked_patterns)
        self._tickets = itertools.count()
        self._engines: EngineGroup | None = None
        self._window = Window(WINDOW_TOKENS[0])
        self._unready: str | None = "the model is loading"
        self._draining = False

    @property
    def dead(self) -> str | None:
        """Why only a new process helps, as a sentence; None while the model loads or works."""
        if self._engines is None:
            return None
        if not self._engines.alive:
            return "the engine has died"
        if (seconds := self._engines.idle_seconds) > self._settings.stall_seconds:
            return f"work waits, and for {seconds:.0f} s none of it was done"
        return None

    @property
    def unready(self) -> str | None:
        """Why no new work should come here, as a sentence; None when it should."""
        if self._unready is None and self._draining:
            return "the server is draining"
        return self.dead or self._unready

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest pair; while the model loads, what the settings allow."""
        if self._engines is None:
            return self._settings.max_model_len
        return self._engines.tokenizer.max_model_len

    async def start(self, loaded: Sequence[Engine]) -> None:
        """Take over the loaded engines; ready afterwards if they pass the score check.

        Raises:
            EngineFailed: an engine broke on its first prompts.
            ModelUnusable: one failed the check, or its template leaves the check no room.
        """
        group = self._engines = EngineGroup(loaded)
        self._unready = "the model is being checked"
        self._metrics.model.labels(
            model=self._settings.name,
            revision=self._settings.revision or "",
            family=group.tokenizer.family,
            dtype=self._settings.dtype,
            version=__version__,
        ).set(1)
        result = await check_scores(
            group.engines,
            enforce_order=self._settings.score_check == "enforce",
            quantised=self._settings.quantization is not None,
        )
        self._metrics.score_check.labels(result=result).set(1)
        speed = await measure_speed(group.engines)
        self._queue.speed.measured(speed.pairs, speed.tokens)
        least, most = WINDOW_TOKENS
        self._window.engines = count = len(group.engines)
        window = WINDOW_SMALL_TIMES * speed.small_seconds * speed.tokens
        self._window.tokens = max(count * least, min(count * most, round(window)))
        log.info(
            "measured the engines",
            extra={
                "engines": count,
                "pairs_per_second": round(speed.pairs, 1),
                "tokens_per_second": round(speed.tokens),
                "small_request_seconds": round(speed.small_seconds, 4),
                "window_tokens": self._window.tokens,
            },
        )
        self._unready = None

    def drain(self) -> None:
        """Ask for no new work. What still comes is served."""
        self._draining = True

    async def score(
        self,
        rankings: Sequence[Ranking],
        deadline_seconds: float | None = None,
        arrived: float | None = None,
    ) -> list[Scored]:
        """Score every document against its query. Being cancelled takes the work out.

        `deadline_seconds` count from `arrived`, on the clock of `time.monotonic`; None is now.

        Raises:
            BadRequest: a query leaves no room for a document, or a document may not be cut.
            Blocked: a text has something in it that this service does not take.
            TooLarge: the request is over one of the limits in the settings.
            Overloaded: too much work waits.
            DeadlineExceeded: `deadline_seconds` have passed.
            NotReady: the model is loading or being checked, or the engine died.
            EngineFailed: the engine broke on this request.
        """
        arrived = time.monotonic() if arrived is None else arrived
        check_size(rankings, self._settings)
        engines = self._engines
        if engines is None or self._unready:
            raise NotReady(f"{self._unready}: try again later")
        pairs = sum(len(ranking.documents) for ranking in rankings)
        left = None
        if deadline_seconds is not None:
            left = max(0.0, deadline_seconds - (time.monotonic() - arrived))
        with self._queue.admit(pairs, left) as work:
            try:
                async with asyncio.timeout(left):
                    if self._blocked:
                        await self._blocked.check(rankings)
                    return await self._run(engines, rankings, work)
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"the {deadline_seconds:g} s that the request gives have passed with "
                    f"{work.pairs} of {pairs} documents left: send fewer, or give more time"
                ) from error
            except EngineFailed as error:
                if engines.alive:
                    raise
                raise NotReady("the engine has died: try again later") from error

    def close(self) -> None:
        """Stop the engines, if there are any."""
        if self._engines is not None:
            self._engines.close()

    async def _run(
        self, engines: EngineGroup, rankings: Sequence[Ranking], work: Work
    ) -> list[Scored]:
        admitted = time.monotonic()
        ticket = next(self._tickets)
        small = work.pairs <= SMALL_PAIRS
        scored = [Scored([0.0] * len(ranking.documents)) for ranking in rankings]

        async def run(places: Sequence[_Place], turn: Turn) -> None:
            entered = time.monotonic()
            logits = await engines.score([place.prompt for place in places])
            self._metrics.engine_seconds.observe(time.monotonic() - entered)
            if not all(map(math.isfinite, logits)):
                # Not in the order of any ranking, nor in JSON.
                raise EngineFailed("the model gave a score that is no number: see RERANK_DTYPE")
            for place, logit in zip(places, logits, strict=True):
                scored[place.ranking].logits[place.document] = logit
                self._metrics.scores.observe(relevance(logit))
            self._metrics.pairs.inc(len(places))
            self._metrics.tokens.inc(turn.tokens)
            work.done(len(places), turn.tokens, self._window.full)

        waiting = True
        chunks = _tokenize(engines.tokenizer, rankings, self._settings.truncate)
        try:
            async with asyncio.TaskGroup() as tasks:
                # In a thread: it takes long enough to hold up a health probe.
                while chunk := await asyncio.to_thread(next, chunks, None):
                    for place in chunk:
                        one = scored[place.ranking]
                        one.tokens += len(place.prompt.ids)
                        if place.cut:
                            one.cut.append(place.document)
                            self._metrics.truncated_documents.inc()
                    for places in _slices(chunk, self._window.slice_tokens):
                        tokens = sum(len(place.prompt.ids) for place in places)
                        turn = await self._window.enter(ticket, tokens, small)
                        if waiting:
                            self._metrics.queue_seconds.observe(time.monotonic() - admitted)
                            waiting = False
                        task = tasks.create_task(run(places, turn))
                        # Not a `finally` in the task: one that is cancelled early never starts.
                        task.add_done_callback(partial(self._leave, turn))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return scored

    def _leave(self, turn: Turn, _: "asyncio.Task[None]") -> None:
        self._window.leave(turn)


def _tokenize(
    tokenizer: PairTokenizer, rankings: Sequence[Ranking], truncate: bool
) -> Iterator[list[_Place]]:
    """Write all prompts, some at a time; raises `BadRequest` as the tokenizer does."""
    chunk: list[_Place] = []
    characters = 0
    for number, ranking in enumerate(rankings):
        question = tokenizer.question(ranking.query, ranking.instruction)
        if ranking.max_document_tokens is not None:
            room = min(question.room, ranking.max_document_tokens)
            question = question._replace(room=room)
        for first in range(0, len(ranking.documents), BATCH_PAIRS):
            documents = ranking.documents[first : first + BATCH_PAIRS]
            prompts, cut = tokenizer.pairs(question, documents)
            if cut and not (truncate and ranking.truncate):
                raise BadRequest(
                    f"{ranking.place.format(first + cut[0])} is longer than the {question.room} "
                    "tokens that the request leaves for it: shorten it, or let it be cut at its end"
                )
            chunk += [
                _Place(prompt, number, first + index, index in cut)
                for index, prompt in enumerate(prompts)
            ]
            characters += sum(map(len, documents))
            if len(chunk) >= CHUNK_PAIRS or characters >= CHUNK_CHARS:
                yield chunk
                chunk, characters = [], 0
    if chunk:
        yield chunk


def _slices(chunk: Sequence[_Place], tokens: int) -> Iterator[list[_Place]]:
    """Cut a chunk into parts of so many tokens at most; a longer prompt is a part of its own."""
    part: list[_Place] = []
    taken = 0
    for place in chunk:
        length = len(place.prompt.ids)
        if part and taken + length > tokens:
            yield part
            part, taken = [], 0
        part.append(place)
        taken += length
    yield part
