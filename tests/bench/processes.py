"""The servers that are compared, each a process of its own on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from rerank_server.families import QWEN3

ROOT = Path(__file__).parents[2]
START_SECONDS = 300


@dataclass(frozen=True)
class Model:
    """What both servers serve."""

    path: Path
    # Flags that both have by the same name.
    flags: Sequence[str]
    # Without compilation and CUDA graphs; ours decides so itself.
    eager: bool


TINY = Model(
    ROOT / "models" / "tiny-reranker",
    ["--dtype", "float32", "--max-model-len", "512"],
    eager=True,
)


@dataclass(frozen=True)
class Server:
    """A server that answers at `url`."""

    url: str
    process_id: int

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have used."""
        first = psutil.Process(self.process_id)
        times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
        return sum(time.user + time.system for time in times)

    def memory_mib(self) -> float:
        """Return what its processes hold, memory that they share counted once."""
        first = psutil.Process(self.process_id)
        processes = [first, *first.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in processes) / 2**20


@contextmanager
def ours(model: Model, log: Path, *flags: str) -> Iterator[Server]:
    """Run our server; `flags` are for it alone."""
    arguments = [sys.executable, "-m", "rerank_server", "--model", str(model.path)]
    with _process([*arguments, *model.flags, *flags], "/ready", log) as server:
        yield server


@contextmanager
def windowed(model: Model, log: Path, times: Path, *flags: str) -> Iterator[Server]:
    """Run our server with a window that follows the file `times`: see `released`, `set_window`."""
    command = [sys.executable, "-m", "bench.windowed", str(times), "--model", str(model.path)]
    with _process([*command, *model.flags, *flags], "/ready", log) as server:
        yield server


@contextmanager
def released(server: AbstractContextManager[Server], times: Path) -> Iterator[Server]:
    """Run a server, and let the `windowed` one that starts beside it wait for it."""
    times.unlink(missing_ok=True)
    try:
        with server as started:
            times.touch()
            yield started
    finally:
        times.touch()


def set_window(server: Server, times: Path, small_times: float) -> None:
    """Give a `windowed` server a window of so many times a small request."""
    times.write_text(f"{small_times}")
    os.kill(server.process_id, signal.SIGUSR1)


@contextmanager
def null(model: Model, log: Path, core: int) -> Iterator[Server]:
    """Run our server on one core, with a stand-in for vLLM that takes no time."""
    command = ["taskset", "--cpu-list", str(core), sys.executable, "tests/standin_server.py"]
    with _process([*command, "--model", str(model.path)], "/ready", log) as server:
        yield server


@contextmanager
def stock(model: Model, log: Path, *flags: str) -> Iterator[Server]:
    """Run vLLM's own server with the same model, template and precision; `flags` are its own."""
    template = log.with_suffix(".jinja")
    template.write_text(
        QWEN3.system
        + QWEN3.question.format(instruction=QWEN3.instruction, query=_content("query"))
        + QWEN3.document.format(document=_content("document"))
        # As an expression: of a template's own text, Jinja drops the last line end.
        + "{{ "
        + json.dumps(QWEN3.suffix)
        + " }}"
    )
    arguments = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    arguments += ["--model", str(model.path), *model.flags, *flags, "--runner", "pooling"]
    arguments += ["--chat-template", str(template)]
    arguments += ["--hf-overrides", json.dumps(QWEN3.architectures["Qwen3ForCausalLM"])]
    arguments += ["--disable-uvicorn-access-log", "--no-enable-log-requests"]
    if model.eager:
        arguments += ["--enforce-eager"]
    with _process(arguments, "/health", log) as server:
        yield server


@contextmanager
def together(*servers: AbstractContextManager[Server]) -> Iterator[list[Server]]:
    """Start servers at once, since each takes a minute or more on a GPU."""
    with ExitStack() as stack:
        with ThreadPoolExecutor() as threads:
            started = list(threads.map(stack.enter_context, servers))
        yield started


def _content(role: str) -> str:
    said = f'messages | selectattr("role", "eq", "{role}") | map(attribute="content") | first'
    return "{{ " + said + " }}"


@contextmanager
def _process(command: Sequence[str], path: str, log: Path) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(ROOT / "server"), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
        ),
        "STANDIN_PAIRS_PER_SECOND": "1e9",
        # The same for both; all else is each one's own default.
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        # None finds there what another has compiled, or is compiling.
        "VLLM_CACHE_ROOT": str(log.with_suffix(".cache")),
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*command, "--port", str(port)],
            env=environment,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait(process, url + path, log)
            yield Server(url, process.pid)
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.2)
    raise SystemExit(f"no answer from {url}; the end of its log:\n{log.read_text()[-3000:]}")
