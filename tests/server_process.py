"""A server process on a free port of this machine, with a stand-in for vLLM."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[1]
SECONDS = 60
REQUEST = {"query": "bread", "documents": ["flour", "moon", "water"]}


@dataclass
class ServerProcess:
    process: "subprocess.Popen[bytes]"
    port: int
    client: httpx.Client
    output: Path

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Open a connection; reading from it fails after a while."""
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(SECONDS)
        raw.connect(("127.0.0.1", self.port))
        return raw

    def log(self) -> list[dict[str, Any]]:
        """Return the records so far; a line that is no JSON fails."""
        lines = self.output.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def logged(self, message: str) -> list[dict[str, Any]]:
        """Return the records of one message."""
        return [record for record in self.log() if record["message"] == message]

    def figure(self, name: str) -> float:
        """Return the value of a metric, its labels in the name; 0 if there is none yet."""
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.split(" ")[1]) for line in lines if line.startswith(f"{name} "))

    def terminate(self) -> None:
        """Send SIGTERM and go on."""
        self.process.send_signal(signal.SIGTERM)

    def memory(self) -> int:
        """Return the resident bytes."""
        return int(psutil.Process(self.process.pid).memory_info().rss)


@contextlib.contextmanager
def server_process(
    model: Path,
    output: Path,
    *flags: str,
    environment: Mapping[str, str] | None = None,
    ready: bool = True,
    port: int | None = None,
    python: str | Path = sys.executable,
) -> Iterator[ServerProcess]:
    """Run a server; its output goes to a file below `output`. `python` has its requirements."""
    if port is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
    log = output / f"server-{time.monotonic_ns()}.log"
    own = {name: value for name, value in os.environ.items() if not name.startswith("RERANK_")} | {
        "PYTHONPATH": f"{ROOT / 'server'}:{ROOT / 'tests'}"
    }
    command = [str(python), str(ROOT / "tests" / "standin_server.py")]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--model", str(model), "--port", str(port), *flags],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=own | dict(environment or {}),
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
            server = ServerProcess(process, port, client, log)
            wait_for(lambda: _answers(server, "/ready" if ready else "/health"), log)
            yield server
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        finally:
            process.kill()


def wait_for(condition: Callable[[], bool], log: Path | None = None) -> None:
    """Wait until `condition` holds, for a while."""
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(log.read_text() if log else "it did not come true")
        time.sleep(0.02)


def _answers(server: ServerProcess, path: str) -> bool:
    if server.process.poll() is not None:
        raise RuntimeError(f"the server has ended: {server.output.read_text()}")
    try:
        return server.client.get(path).status_code == 200
    except httpx.TransportError:
        return False
