"""Our server beside vLLM's own, with the small model, on this machine: `make bench-server`.

Both run at once and take turns, so that whatever else the machine does falls on both.
"""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from bench import processes
from bench.load import Outcome, Texts, beside, closed_loop, counted, open_loop, probe, scores

MODEL = Path(__file__).parents[2] / "models" / "tiny-reranker"
DOCUMENTS, TOKENS, CONCURRENCY = 100, 100, 16
SMALL, LARGE = (2, 100), (1000, 100)
NULL_REQUESTS = 10_000


class Figures(dict[str, float]):
    """Figures by name, each printed when it is known."""

    def __setitem__(self, name: str, value: float) -> None:
        super().__setitem__(name, value)
        print(f"{name:<64} {value:>10,.2f}", flush=True)


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
                processes.ours(MODEL, logs / "ours.log") as ours,
                processes.stock(MODEL, logs / "stock.log") as stock,
            ):
                figures |= asyncio.run(compare(ours, stock, options.seconds, options.rounds))
        if options.only != "peer":
            with processes.null(MODEL, logs / "null.log", core=0) as null:
                figures |= asyncio.run(alone(null, options.seconds))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


async def compare(
    ours: processes.Server, stock: processes.Server, seconds: float, rounds: int
) -> Figures:
    """Return pairs a second, latencies and their ratios."""
    servers = {"ours": ours, "stock vLLM": stock}
    figures = Figures()
    same = [Texts(MODEL, 7).request(10, tokens) for tokens in (5, 50, 200)]
    one, other = [await scores(server.url, same) for server in servers.values()]
    figures["largest difference of a score"] = max(
        abs(a - b)
        for left, right in zip(one, other, strict=True)
        for a, b in zip(left, right, strict=True)
    )
    if figures["largest difference of a score"] > 1e-2:
        raise SystemExit("the two servers do not do the same work")
    busy = {name: Outcome() for name in servers}
    health = {name: Outcome() for name in servers}
    for turn in range(rounds + 1):
        for name, server in servers.items():
            probing = asyncio.create_task(probe(server.url, "/health", 0.05, health[name]))
            outcome = await closed_loop(
                server.url,
                Texts(MODEL, turn),
                DOCUMENTS,
                TOKENS,
                CONCURRENCY,
                seconds if turn else 3,
            )
            probing.cancel()
            await probing
            if not turn:  # a warm-up
                health[name] = Outcome()
                continue
            busy[name].seconds += outcome.seconds
            busy[name].pairs += outcome.pairs
            busy[name].latencies += outcome.latencies
    load = f"{DOCUMENTS} x {TOKENS} tokens, {CONCURRENCY} at once"
    for name, outcome in busy.items():
        figures[f"{load}: pairs/s, {name}"] = outcome.pairs_per_second
    figures[f"{load}: ratio"] = busy["ours"].pairs_per_second / busy["stock vLLM"].pairs_per_second
    for name in servers:
        figures[f"{load}: p99 of /health in ms, {name}"] = health[name].milliseconds(99)
    # What the slower one still carries.
    rate = 0.7 * min(outcome.pairs_per_second for outcome in busy.values()) / DOCUMENTS
    for name, server in servers.items():
        outcome = await open_loop(server.url, Texts(MODEL, 99), DOCUMENTS, TOKENS, rate, seconds)
        for percent in (50, 99):
            figures[f"open loop, {rate:.1f} requests/s: p{percent} in ms, {name}"] = (
                outcome.milliseconds(percent)
            )
    for name, server in servers.items():
        alone, crowded = await beside(server.url, Texts(MODEL, 5), SMALL, LARGE, count=10)
        figures[f"2 documents alone: p50 in ms, {name}"] = alone.milliseconds(50)
        figures[f"2 documents beside 1,000: p50 in ms, {name}"] = crowded.milliseconds(50)
        figures[f"2 documents beside 1,000: times alone, {name}"] = crowded.milliseconds(
            50
        ) / alone.milliseconds(50)
        figures[f"memory in MiB, {name}"] = server.memory_mib()
    return figures


async def alone(null: processes.Server, seconds: float) -> Figures:
    """Return what our server does on one core when the engine takes no time."""
    figures = Figures()
    await closed_loop(null.url, Texts(MODEL, 0), DOCUMENTS, TOKENS, 4, 3)
    before = null.cpu_seconds()
    outcome = await closed_loop(null.url, Texts(MODEL, 1), DOCUMENTS, TOKENS, 4, seconds)
    figures["null engine, one core: pairs/s"] = outcome.pairs_per_second
    # Of the server's own processor time: what others take of the core does not count.
    figures["null engine: pairs per second of processor time"] = outcome.pairs / (
        null.cpu_seconds() - before
    )
    for count in (NULL_REQUESTS // 5, NULL_REQUESTS):
        await counted(null.url, Texts(MODEL, 2), 10, 50, 8, count)
        figures[f"null engine: memory in MiB after {count:,} requests"] = null.memory_mib()
    return figures


if __name__ == "__main__":
    main()
