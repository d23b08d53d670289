"""Requests like those of RAG services, sent on loopback, and how they fared."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import aiohttp
from tokenizers import Tokenizer


@dataclass
class Outcome:
    """Latencies in seconds of the requests that got scores, and how many got none."""

    seconds: float = 0.0
    pairs: int = 0
    failed: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def pairs_per_second(self) -> float:
        """Pairs whose scores came back, by the wall clock."""
        return self.pairs / self.seconds

    def milliseconds(self, percent: int) -> float:
        """Return a percentile of the latencies."""
        if len(self.latencies) < 2:
            return 1000 * sum(self.latencies)
        return 1000 * quantiles(self.latencies, n=100, method="inclusive")[percent - 1]


class Texts:
    """Random documents of a given number of tokens; none comes twice, so no cache helps."""

    def __init__(self, model: Path, seed: int) -> None:
        """`model` is a directory with a tokenizer.json."""
        vocabulary = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab()
        # A word with its space in front is one token.
        self._words = sorted(
            word[1:] for word in vocabulary if word[:1] == "Ġ" and word[1:].isalpha()
        )
        self._chance = random.Random(seed)

    def request(self, documents: int, tokens: int) -> dict[str, Any]:
        """Return the body of a request."""
        return {
            "query": " ".join(self._chance.choices(self._words, k=8)),
            "documents": [
                " ".join(self._chance.choices(self._words, k=tokens)) for _ in range(documents)
            ],
            "return_documents": False,
        }


@asynccontextmanager
async def client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a client that keeps as many connections as it needs."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(url, connector=connector, timeout=timeout) as session:
        yield session


async def send(
    session: aiohttp.ClientSession, request: dict[str, Any], outcome: Outcome
) -> list[float]:
    """Send one request and return its scores in the order of the documents; none if it failed."""
    started = time.perf_counter()
    async with session.post("/v1/rerank", json=request) as response:
        answer = await response.json()
    if response.status != 200:
        outcome.failed += 1
        return []
    outcome.latencies.append(time.perf_counter() - started)
    outcome.pairs += len(request["documents"])
    results = sorted(answer["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in results]


async def closed_loop(
    url: str, texts: Texts, documents: int, tokens: int, concurrency: int, seconds: float
) -> Outcome:
    """Keep `concurrency` requests in flight for `seconds`."""
    outcome = Outcome()
    async with client(url) as session:
        started = time.perf_counter()

        async def one_after_another() -> None:
            while time.perf_counter() - started < seconds:
                await send(session, texts.request(documents, tokens), outcome)

        await asyncio.gather(*(one_after_another() for _ in range(concurrency)))
        outcome.seconds = time.perf_counter() - started
    return outcome


async def counted(
    url: str, texts: Texts, documents: int, tokens: int, concurrency: int, count: int
) -> Outcome:
    """Send `count` requests, some at a time."""
    outcome = Outcome()
    async with client(url) as session:
        started = time.perf_counter()

        async def one_after_another() -> None:
            for _ in range(count // concurrency):
                await send(session, texts.request(documents, tokens), outcome)

        await asyncio.gather(*(one_after_another() for _ in range(concurrency)))
        outcome.seconds = time.perf_counter() - started
    return outcome


async def open_loop(
    url: str, texts: Texts, documents: int, tokens: int, per_second: float, seconds: float
) -> Outcome:
    """Send requests at random times, so many a second, whatever became of those before."""
    outcome = Outcome()
    chance = random.Random(1)
    async with client(url) as session, asyncio.TaskGroup() as tasks:
        started = time.perf_counter()
        at = 0.0
        while (at := at + chance.expovariate(per_second)) < seconds:
            request = texts.request(documents, tokens)
            await asyncio.sleep(max(0.0, started + at - time.perf_counter()))
            tasks.create_task(send(session, request, outcome))
    outcome.seconds = time.perf_counter() - started
    return outcome


async def probe(url: str, path: str, every_seconds: float, outcome: Outcome) -> None:
    """Get `path` again and again until cancelled."""
    with suppress(asyncio.CancelledError):
        async with client(url) as session:
            while True:
                started = time.perf_counter()
                async with session.get(path) as response:
                    await response.read()
                outcome.latencies.append(time.perf_counter() - started)
                await asyncio.sleep(every_seconds)


async def beside(
    url: str, texts: Texts, small: tuple[int, int], large: tuple[int, int], count: int
) -> tuple[Outcome, Outcome]:
    """Send `count` small requests one by one, alone and then beside large ones.

    `small` and `large` are documents and tokens of each. Returns the outcomes of the small ones.
    """
    alone, crowded = Outcome(), Outcome()
    async with client(url) as session:
        for _ in range(count):
            await send(session, texts.request(*small), alone)

        async def crowd() -> None:
            while True:
                await send(session, texts.request(*large), Outcome())

        crowding = asyncio.create_task(crowd())
        await asyncio.sleep(1)
        for _ in range(count):
            await send(session, texts.request(*small), crowded)
        crowding.cancel()
        with suppress(asyncio.CancelledError):
            await crowding
    return alone, crowded


async def scores(url: str, requests: Sequence[dict[str, Any]]) -> list[list[float]]:
    """Return the scores of each request."""
    async with client(url) as session:
        return [await send(session, request, Outcome()) for request in requests]
