"""Texts that whoever runs the server does not want to be asked about."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import regex

from rerank_server.errors import Blocked
from rerank_server.ranking import Ranking

# For all texts of one request and all patterns. A pattern that backtracks takes any time at all.
LONGEST_SECONDS = 2.0
# Requests searched at once; the search leaves other threads the interpreter.
THREADS = 2


class BlockedPatterns:
    """Regular expressions none of which may be found in a request."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """`patterns` are valid; Settings has seen to that."""
        self._patterns = [regex.compile(pattern) for pattern in patterns]
        # Their own: a pattern that backtracks would keep those from work that everybody needs.
        self._threads = ThreadPoolExecutor(THREADS, "patterns")

    def __bool__(self) -> bool:
        return bool(self._patterns)

    async def check(self, rankings: Sequence[Ranking]) -> None:
        """Search every text, in a thread.

        Raises:
            Blocked: one was found, or the search took too long. The message names the field, and
                neither pattern nor text.
        """
        await asyncio.get_running_loop().run_in_executor(self._threads, self._search, rankings)

    def _search(self, rankings: Sequence[Ranking]) -> None:
        end = time.monotonic() + LONGEST_SECONDS
        for name, text in _texts(rankings):
            for pattern in self._patterns:
                left = end - time.monotonic()
                try:
                    # Zero would be taken for no bound.
                    found = pattern.search(text, timeout=max(left, 0.001), concurrent=True)
                except TimeoutError as error:
                    raise Blocked(
                        f"{name} could not be searched for blocked patterns within "
                        f"{LONGEST_SECONDS:g} s: send shorter texts, or fewer at a time"
                    ) from error
                if found:
                    raise Blocked(f"{name} has something in it that this service does not take")


def _texts(rankings: Sequence[Ranking]) -> Iterator[tuple[str, str]]:
    for ranking in rankings:
        yield "query", ranking.query
        yield "instruction", ranking.instruction or ""
        for index, document in enumerate(ranking.documents):
            yield ranking.place.format(index), document
