"""Our server beside vLLM's own, with the small model, on this machine: `make bench-server`.

Both run at once and take turns, so that whatever else the machine does falls on both.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench import processes
from bench.load import Outcome, Texts, beside, closed_loop, counted, open_loop, probe, scores

SMALL, LARGE = (2, 100), (1000, 100)
NULL_REQUESTS = 10_000


class Load(NamedTuple):
    """Requests of so many documents of so many tokens, so many at once."""

    documents: int
    tokens: int
    concurrency: int

    def __str__(self) -> str:
        """Return its name among the figures."""
        return f"{self.documents} x {self.tokens} tokens, {self.concurrency} at once"


LOAD = Load(100, 100, 16)
Servers = Mapping[str, processes.Server]


class Figures(dict[str, float]):
    """Figures by name, each printed when it is known."""

    def __setitem__(self, name: str, value: float) -> None:
        super().__setitem__(name, value)
        print(f"{name:<64} {value:>12,.4f}", flush=True)


def main() -> None:
    """Print the figures and write them to --out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="how often the servers take turns")
    parser.add_argument("--out", type=Path, help="write the figures here")
    parser.add_argument("--only", choices=["peer", "null"], help="one part of it")
    options = parser.parse_args()
    # As an exception, so that the servers end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    figures = Figures()
    with tempfile.TemporaryDirectory() as directory:
        logs = Path(directory)
        if options.only != "null":
            with (
                processes.ours(processes.TINY, logs / "ours.log") as ours,
                processes.stock(processes.TINY, logs / "stock.log") as stock,
            ):
                figures |= asyncio.run(compare(ours, stock, options.seconds, options.rounds))
        if options.only != "peer":
            with processes.null(processes.TINY, logs / "null.log", core=0) as null:
                figures |= asyncio.run(alone(null, options.seconds))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


async def compare(
    ours: processes.Server, stock: processes.Server, seconds: float, rounds: int
) -> Figures:
    """Return pairs a second, latencies and their ratios."""
    servers = {"ours": ours, "stock vLLM": stock}
    path = processes.TINY.path
    figures = Figures()
    await same_scores(servers, path, figures)
    await throughput(servers, path, LOAD, seconds, rounds, figures)
    # What the slower one still carries.
    slower = min(figures[f"{LOAD}: pairs/s, {name}"] for name in servers)
    rate = 0.7 * slower / LOAD.documents
    for name, server in servers.items():
        outcome = await open_loop(
            server.url, Texts(path, 99), LOAD.documents, LOAD.tokens, rate, seconds
        )
        for percent in (50, 99):
            figures[f"open loop, {rate:.1f} requests/s: p{percent} in ms, {name}"] = (
                outcome.milliseconds(percent)
            )
    await small_beside_large(servers, path, figures)
    for name, server in servers.items():
        figures[f"memory in MiB, {name}"] = server.memory_mib()
    return figures


async def same_scores(servers: Servers, model: Path, figures: Figures, most: float = 1e-2) -> None:
    """See that two servers do the same work: no score differs by more than `most`.

    Raises:
        SystemExit: they do not.
    """
    same = [Texts(model, 7).request(10, tokens) for tokens in (5, 50, 200)]
    one, other = [await scores(server.url, same) for server in servers.values()]
    figures["largest difference of a score"] = max(
        abs(a - b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )
    if figures["largest difference of a score"] > most:
        raise SystemExit("the two servers do not do the same work")


async def throughput(
    servers: Servers, model: Path, load: Load, seconds: float, rounds: int, figures: Figures
) -> None:
    """Have the servers take turns under a load; the first is compared with the second."""
    busy = {name: Outcome() for name in servers}
    health = {name: Outcome() for name in servers}
    for turn in range(rounds + 1):
        for name, server in servers.items():
            probing = asyncio.create_task(probe(server.url, "/health", 0.05, health[name]))
            outcome = await closed_loop(
                server.url, Texts(model, turn), *load, seconds if turn else min(3, seconds)
            )
            probing.cancel()
            await probing
            if not turn:  # a warm-up
                health[name] = Outcome()
                continue
            busy[name].seconds += outcome.seconds
            busy[name].pairs += outcome.pairs
            busy[name].failed += outcome.failed
            busy[name].latencies += outcome.latencies
    for name, outcome in busy.items():
        figures[f"{load}: pairs/s, {name}"] = outcome.pairs_per_second
        figures[f"{load}: p50 in ms, {name}"] = outcome.milliseconds(50)
        figures[f"{load}: failed, {name}"] = outcome.failed
        figures[f"{load}: p99 of /health in ms, {name}"] = health[name].milliseconds(99)
    if len(busy) == 2:
        one, other = busy.values()
        figures[f"{load}: ratio"] = one.pairs_per_second / other.pairs_per_second


async def small_beside_large(
    servers: Servers, model: Path, figures: Figures, large: tuple[int, int] = LARGE
) -> None:
    """Time small requests alone and beside large ones of so many documents of so many tokens."""
    for name, server in servers.items():
        alone, crowded = await beside(server.url, Texts(model, 5), SMALL, large, count=10)
        figures[f"2 documents alone: p50 in ms, {name}"] = alone.milliseconds(50)
        figures[f"2 documents beside 1,000: p50 in ms, {name}"] = crowded.milliseconds(50)
        figures[f"2 documents beside 1,000: times alone, {name}"] = crowded.milliseconds(
            50
        ) / alone.milliseconds(50)


async def alone(null: processes.Server, seconds: float) -> Figures:
    """Return what our server does on one core when the engine takes no time."""
    figures = Figures()
    model = processes.TINY.path
    await closed_loop(null.url, Texts(model, 0), LOAD.documents, LOAD.tokens, 4, 3)
    before = null.cpu_seconds()
    outcome = await closed_loop(null.url, Texts(model, 1), LOAD.documents, LOAD.tokens, 4, seconds)
    figures["null engine, one core: pairs/s"] = outcome.pairs_per_second
    # Of the server's own processor time: what others take of the core does not count.
    figures["null engine: pairs per second of processor time"] = outcome.pairs / (
        null.cpu_seconds() - before
    )
    for count in (NULL_REQUESTS // 5, NULL_REQUESTS):
        await counted(null.url, Texts(model, 2), 10, 50, 8, count)
        figures[f"null engine: memory in MiB after {count:,} requests"] = null.memory_mib()
    return figures


if __name__ == "__main__":
    main()
