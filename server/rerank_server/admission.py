"""How much work may come in: what one request may bring, and what may wait in all."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rerank_server.errors import Overloaded, TooLarge
from rerank_server.metrics import Metrics
from rerank_server.ranking import Ranking
from rerank_server.settings import Settings
from rerank_server.speed import Speed

LONGEST_RETRY_SECONDS = 60


def check_size(rankings: Sequence[Ranking], settings: Settings) -> None:
    """Refuse what is too large before any tokenizer sees it.

    Raises:
        TooLarge: the message names the field, its size, the limit and the remedy.
    """
    count = sum(len(ranking.documents) for ranking in rankings)
    most = min(settings.max_documents, settings.max_queued_pairs)
    if count > most:
        raise TooLarge(
            f"the request has {count} documents, and the limit is {most}: send them in several "
            "requests"
        )
    for ranking in rankings:
        for name, text in (("query", ranking.query), ("instruction", ranking.instruction or "")):
            if len(text) > settings.max_query_chars:
                raise TooLarge(
                    f"the {name} has {len(text)} characters, and the limit is "
                    f"{settings.max_query_chars}: shorten it"
                )
        for index, document in enumerate(ranking.documents):
            if len(document) > settings.max_document_chars:
                raise TooLarge(
                    f"{ranking.place.format(index)} has {len(document)} characters, and the "
                    f"limit is {settings.max_document_chars}: send it in parts"
                )


class Arriving:
    """The bytes of all bodies that are being read: each may be small enough, and all too much."""

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes."""
        self._limit = limit
        self._bytes = 0

    def add(self, size: int) -> None:
        """Count bytes that have come; who adds has to `remove` them.

        Raises:
            Overloaded: there is no room for them, and they are not counted.
        """
        if self._bytes + size > self._limit:
            raise Overloaded(
                f"bodies of more than {self._limit:,} bytes arrive at once: try again later",
                retry_after_seconds=1,
            )
        self._bytes += size

    def remove(self, size: int) -> None:
        """Forget bytes that were added."""
        self._bytes -= size


class Work:
    """The pairs of one request that still wait or run."""

    def __init__(self, queue: "Queue", pairs: int) -> None:
        self._queue = queue
        self.pairs = pairs

    def done(self, pairs: int, tokens: int, saturated: bool) -> None:
        """Tell that so many of them, and of tokens, are done; see `Speed.done`."""
        self.pairs -= pairs
        self._queue.done(pairs, tokens, saturated)


class Queue:
    """All pairs that wait or run, and how fast they get done."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        """`limit` is the number of pairs above which new requests are refused."""
        self._limit = limit
        self._metrics = metrics
        self._pairs = 0
        self.speed = Speed()
        metrics.capacity.set_function(lambda: self.speed.pairs)
        metrics.queue_wait.set_function(lambda: self._seconds(self._pairs))
        metrics.utilization.set_function(self.speed.utilization)

    @contextmanager
    def admit(self, pairs: int, deadline_seconds: float | None) -> Iterator[Work]:
        """Count a request's pairs for as long as the block runs.

        Raises:
            Overloaded: too many wait already, or the request would not be done in time.
        """
        wait = self._seconds(self._pairs)
        if (excess := self._pairs + pairs - self._limit) > 0:
            raise Overloaded(
                f"{self._pairs} query-document pairs wait already, and the limit is "
                f"{self._limit}: try again later",
                retry_after_seconds=_whole_seconds(self._seconds(excess)),
            )
        if deadline_seconds is not None and wait > deadline_seconds:
            raise Overloaded(
                f"the work ahead takes about {wait:.1f} s, and {deadline_seconds:.1f} s are "
                "left for the request: try again later",
                retry_after_seconds=_whole_seconds(wait - deadline_seconds),
            )
        if not self._pairs:
            self.speed.start()
        work = Work(self, pairs)
        self._change(pairs)
        try:
            yield work
        finally:
            self._change(-work.pairs)

    def done(self, pairs: int, tokens: int, saturated: bool) -> None:
        """Note that pairs have their scores; see `Speed.done`."""
        self.speed.done(pairs, tokens, saturated)
        self._change(-pairs)

    def _seconds(self, pairs: int) -> float:
        return pairs / self.speed.pairs if self.speed.pairs else 0.0

    def _change(self, pairs: int) -> None:
        self._pairs += pairs
        if not self._pairs:
            self.speed.stop()
        self._metrics.queue_depth.set(self._pairs)


def _whole_seconds(seconds: float) -> int:
    return max(1, min(math.ceil(seconds), LONGEST_RETRY_SECONDS))
