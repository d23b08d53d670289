"""Our server beside vLLM's own on a GPU, with a model of real size: `make bench-gpu`.

The model has the architecture of Qwen3-Reranker-0.6B and random weights, which are made on the
spot: nothing is downloaded. Its tokenizer is that of the small reranker.
"""

import argparse
import asyncio
import json
import re
import signal
import sys
from math import log
from pathlib import Path
from statistics import pstdev
from typing import Any

from bench import processes
from bench.load import Texts, closed_loop, scores
from bench.server import LARGE, Figures, Load, same_scores, small_beside_large, throughput
from checkpoints import write_model
from rerank_server.families import QWEN3
from rerank_server.scheduling import WIDE_AFTER_SECONDS

LOADS = [Load(100, 100, 16), Load(50, 400, 16), Load(20, 1500, 8)]
SMALL_LOADS = [Load(20, 20, 2), Load(20, 100, 2)]
# Of the KV cache, of each server: vLLM would measure what is free, while another server starts.
CACHE_BYTES = 40 * 2**30
# https://huggingface.co/Qwen/Qwen3-Reranker-0.6B/blob/main/config.json
SHAPE = {
    "vocab_size": 151_669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40_960,
}
# Of a logit in 16 bits, as a part of the spread of the logits: a wrong template is further off.
WORST_ERROR = 0.2
# What servers say of themselves in their logs, as JSON or as text.
SAID = re.compile(
    r"\b(max_num_batched_tokens|max_num_seqs|pairs_per_second|tokens_per_second"
    r'|small_request_seconds|window_tokens)"?[=:] ?(\d+(?:\.\d+)?)'
)


def main() -> None:
    """Print the figures and write them to --out as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2, help="how often the servers take turns")
    parser.add_argument("--out", type=Path, help="write the figures here")
    parser.add_argument("--only", choices=["peer", "fp8", "two", "engines"], help="one part of it")
    parser.add_argument(
        "--directory", type=Path, default=processes.ROOT / "build" / "gpu", help="model and logs"
    )
    parser.add_argument(
        "--windows",
        type=float,
        nargs="*",
        default=[],
        help="try these, in times of a small request",
    )
    parser.add_argument(
        "--engines", type=int, nargs="*", default=[1, 2, 4], help="try so many on the GPU"
    )
    parser.add_argument("--small", action="store_true", help="a small model, to rehearse on a CPU")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    directory: Path = options.directory
    directory.mkdir(parents=True, exist_ok=True)
    flags = ["--dtype", "float32" if options.small else "half", "--max-model-len", "2048"]
    # Both servers share the GPU.
    flags += ["--gpu-memory-utilization", "0.4"]
    model = processes.Model(directory / "model", flags, eager=options.small)
    if not (model.path / "config.json").exists():
        shape = SHAPE | {"num_hidden_layers": 2, "hidden_size": 64} if options.small else SHAPE
        write_model("Qwen3ForCausalLM", model.path, processes.TINY.path, **shape)
    figures = Figures()
    try:
        measure(model, directory, options, figures)
    finally:
        # What is known by then is kept.
        if options.out:
            options.out.write_text(json.dumps(figures, indent=1) + "\n")


def measure(model: processes.Model, directory: Path, options: Any, figures: Figures) -> None:
    """Start the servers and measure them."""
    expected = reference(model.path)
    figures["standard deviation of the logits"] = pstdev(map(logit, expected))
    if options.only in (None, "peer"):
        ours_flags, stock_flags = cache_flags(options.small)
        log, times = directory / "ours.log", directory / "window"
        stock_log = directory / "stock.log"
        with processes.together(
            processes.windowed(model, log, times, *ours_flags),
            processes.released(processes.stock(model, stock_log, *stock_flags), times),
        ) as (ours, stock):
            take(said(log), "ours", figures)
            take(said(stock_log), "stock vLLM", figures)
            asyncio.run(right(ours, model.path, expected, "half", figures))
            servers = {"ours": ours, "stock vLLM": stock}
            asyncio.run(peer(servers, model.path, options, figures))
            asyncio.run(windows(ours, times, log, model.path, options, figures))
    if options.only in (None, "fp8"):
        log = directory / "fp8.log"
        with processes.ours(model, log, "--quantization", "fp8") as fp8:
            take(said(log), "fp8", figures)
            asyncio.run(right(fp8, model.path, expected, "fp8", figures))
            asyncio.run(single(fp8, model.path, options, figures, "fp8"))
    if options.only in (None, "two"):
        two(model, directory / "two.log", expected, options, figures)
    if options.only in (None, "engines"):
        engines(model, directory / "engines.log", expected, options, figures)


def cache_flags(small: bool) -> tuple[list[str], list[str]]:
    """Return the flags that give our server and vLLM's own the same KV cache."""
    if small:  # a CPU has it from the environment
        return [], []
    return (
        ["--engine-args", json.dumps({"kv_cache_memory_bytes": CACHE_BYTES})],
        ["--kv-cache-memory-bytes", str(CACHE_BYTES)],
    )


def said(log: Path) -> dict[str, float]:
    """Return what a server says of itself; the last word counts."""
    return {what: float(value) for what, value in SAID.findall(log.read_text())}


def take(said: dict[str, float], name: str, figures: Figures) -> None:
    """Put it among the figures."""
    for what, value in said.items():
        figures[f"{name}: {what}"] = value


def questions(model: Path) -> list[dict[str, Any]]:
    """Return requests whose scores are compared."""
    texts = Texts(model, 11)
    return [texts.request(10, tokens) for tokens in (5, 50, 400)]


def reference(model: Path) -> list[float]:
    """Return the scores of `questions` by transformers in 32 bits."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).to(device)
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    no, yes = (tokenizer.token_to_id(word) for word in QWEN3.answers)
    found = []
    for request in questions(model):
        for document in request["documents"]:
            question = QWEN3.question.format(instruction=QWEN3.instruction, query=request["query"])
            text = QWEN3.system + question + QWEN3.document.format(document=document) + QWEN3.suffix
            ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
            with torch.no_grad():
                logits = network(ids.to(device), logits_to_keep=1).logits[0, -1]
            found.append(float(torch.sigmoid((logits[yes] - logits[no]).double())))
    return found


def logit(score: float) -> float:
    """Return what the sigmoid was taken of."""
    return log(score / (1 - score))


async def right(
    server: processes.Server, model: Path, expected: list[float], name: str, figures: Figures
) -> None:
    """Compare the scores of a server with those of transformers in 32 bits.

    Raises:
        SystemExit: in 16 bits, a logit is further off than rounding takes it.
    """
    found = [score for answer in await scores(server.url, questions(model)) for score in answer]
    off = [abs(logit(a) - logit(b)) for a, b in zip(found, expected, strict=True)]
    figures[f"{name}: largest error of a score"] = max(
        abs(a - b) for a, b in zip(found, expected, strict=True)
    )
    figures[f"{name}: largest error of a logit"] = max(off)
    pairs = [(a, b) for a in range(len(found)) for b in range(a)]
    figures[f"{name}: share of pairs in the same order"] = sum(
        (found[a] > found[b]) == (expected[a] > expected[b]) for a, b in pairs
    ) / len(pairs)
    if name == "half" and max(off) > WORST_ERROR * pstdev(map(logit, expected)):
        raise SystemExit("the scores are not those of the model")


def loads(options: Any) -> list[Load]:
    """Return the loads to measure."""
    return SMALL_LOADS if options.small else LOADS


async def single(
    server: processes.Server, model: Path, options: Any, figures: Figures, name: str
) -> None:
    """Measure one server by itself."""
    load = loads(options)[0]
    await throughput({f"{name} alone": server}, model, load, options.seconds, 1, figures)


async def peer(
    servers: dict[str, processes.Server], model: Path, options: Any, figures: Figures
) -> None:
    """Measure both servers."""
    # In 16 bits, what is computed together shows in the scores.
    await same_scores(servers, model, figures, most=0.1)
    # Small requests, as those were, narrow our window for so long.
    await asyncio.sleep(WIDE_AFTER_SECONDS)
    for load in loads(options):
        await throughput(servers, model, load, options.seconds, options.rounds, figures)
    for name, server in servers.items():
        load = Load(*loads(options)[0][:2], 1)
        outcome = await closed_loop(server.url, Texts(model, 3), *load, options.seconds / 2)
        figures[f"{load}: p50 in ms, {name}"] = outcome.milliseconds(50)
    await small_beside_large(servers, model, figures, large(options))


async def windows(
    server: processes.Server, times: Path, log: Path, model: Path, options: Any, figures: Figures
) -> None:
    """Measure our server with one window after the other."""
    if options.windows:
        await asyncio.sleep(WIDE_AFTER_SECONDS)
    for window in options.windows:
        processes.set_window(server, times, window)
        for load in loads(options):
            named = {f"ours, window {window:g}": server}
            await throughput(named, model, load, options.seconds, 1, figures)
        figures[f"ours, window {window:g}: window_tokens"] = said(log)["window_tokens"]
    for window in options.windows:
        processes.set_window(server, times, window)
        named = {f"ours, window {window:g}": server}
        await small_beside_large(named, model, figures, large(options))


def large(options: Any) -> tuple[int, int]:
    """Return documents and tokens of the requests beside which small ones have to be fast."""
    return (50, 100) if options.small else LARGE


def two(
    model: processes.Model, output: Path, expected: list[float], options: Any, figures: Figures
) -> None:
    """Serve the model on two GPUs, if there are two."""
    import torch

    if torch.cuda.device_count() < 2:
        print("one GPU or none: no tensor parallelism to try", flush=True)
        return
    with processes.ours(model, output, "--tensor-parallel-size", "2") as server:
        take(said(output), "two GPUs", figures)
        asyncio.run(right(server, model.path, expected, "two GPUs", figures))
        asyncio.run(single(server, model.path, options, figures, "two GPUs"))


def engines(
    model: processes.Model, output: Path, expected: list[float], options: Any, figures: Figures
) -> None:
    """Serve the model with one engine on the GPU, then with several, alone there each time.

    Each is compared with the first.
    """
    for count in options.engines:
        name = f"{count} engines"
        # Of two of a flag the last counts.
        flags = ["--gpu-memory-utilization", "0.9", "--engines-per-gpu", f"{count}"]
        with processes.ours(model, output, *flags) as server:
            take(said(output), name, figures)
            asyncio.run(right(server, model.path, expected, name, figures))
            asyncio.run(shared(server, model, options, figures, name))
        for load in shared_loads(options):
            first, this = (
                figures[f"{load}: pairs/s, {each} engines"] for each in (options.engines[0], count)
            )
            figures[f"{load}: ratio, {name}"] = this / first


def shared_loads(options: Any) -> list[Load]:
    """Return the loads for `engines`: the usual ones, and one request at a time."""
    return [*loads(options), Load(*loads(options)[0][:2], 1)]


async def shared(
    server: processes.Server, model: processes.Model, options: Any, figures: Figures, name: str
) -> None:
    """Measure one of `engines`."""
    import torch

    # Small requests, as those of `right` were, narrow our window for so long.
    await asyncio.sleep(WIDE_AFTER_SECONDS)
    for load in shared_loads(options):
        await throughput({name: server}, model.path, load, options.seconds, options.rounds, figures)
    await small_beside_large({name: server}, model.path, figures, large(options))
    figures[f"memory in MiB, {name}"] = server.memory_mib()
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        figures[f"memory of the GPU in MiB, {name}"] = (total - free) / 2**20


if __name__ == "__main__":
    main()
