"""The real operator as a process of its own."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from apiserver.controlplane import (
    OPERATOR,
    ControlPlane,
    daemon,
    eventually,
    free_ports,
    read_lines,
)

SOURCE = Path(__file__).parents[2] / "operator"
# That of the chart, in a release of the name that its documentation gives it.
LEASE = "rerank-system/rerank-operator"


class OperatorProcess:
    """Starts, stops and asks one operator that watches all namespaces.

    `settings` are those of the operator, by the names of their fields.
    """

    def __init__(
        self,
        plane: ControlPlane,
        *arguments: str,
        kubeconfig: Path | None = None,
        **settings: str,
    ) -> None:
        self._plane = plane
        self._arguments = arguments
        self._kubeconfig = kubeconfig or plane.kubeconfig(OPERATOR)
        self._settings = settings
        self._stack = ExitStack()
        self._starts = 0

    def start(self) -> None:
        """Return once it watches."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Return at once."""
        self._starts += 1
        self.port, self.metrics_port = free_ports(2)
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "KUBECONFIG": str(self._kubeconfig),
            "RERANK_OPERATOR_HEALTH_PORT": str(self.port),
            "RERANK_OPERATOR_METRICS_PORT": str(self.metrics_port),
            "RERANK_OPERATOR_LOG_LEVEL": "DEBUG",
            **{f"RERANK_OPERATOR_{name.upper()}": text for name, text in self._settings.items()},
        }
        # `env -i` keeps this machine's own settings, proxies above all, away from it.
        command = [
            "/usr/bin/env",
            "-i",
            *(f"{name}={value}" for name, value in environment.items()),
            sys.executable,
            "-m",
            "rerank_operator",
            "run",
            *self._arguments,
        ]
        process = self._stack.enter_context(daemon(command, self.log))
        self._process = process

    def wait(self) -> None:
        """Return once it watches."""
        eventually(lambda: self.probe("readyz").status_code == 200, seconds=60)

    def probe(self, path: str) -> httpx.Response:
        """Return what it answers a probe."""
        return httpx.get(f"http://127.0.0.1:{self.port}/{path}", trust_env=False)

    def running(self) -> bool:
        """Tell whether the process of the last start is still there."""
        return self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def exit_code(self, seconds: float = 20) -> int:
        """Wait for the process to end by itself, and return what with."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s") from None

    @property
    def identity(self) -> str:
        """What it calls itself in the Lease and in the audit log."""
        started = eventually(lambda: [r for r in self.records() if r["message"] == "starting"])
        identity: str = started[0]["identity"]
        return identity

    def metric(self, name: str) -> float:
        """Return the value of a metric; `name` is with its labels, as it is printed."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", trust_env=False).text
        values = [line.rpartition(" ") for line in text.splitlines()]
        return next(float(value) for key, _, value in values if key == name)

    def stop(self) -> None:
        """End it with SIGTERM."""
        self._stack.close()

    def restart(self) -> None:
        """Have it forget all it knows."""
        self.stop()
        self.start()

    @property
    def log(self) -> Path:
        """The file that this start of it logs to."""
        return self._plane.folder / f"operator-{id(self)}-{self._starts}.log"

    def records(self) -> list[dict[str, Any]]:
        """Return what it has logged since its start."""
        return read_lines(self.log)

    def leads(self) -> bool:
        """Tell whether it may write."""
        return self.metric(f'leader_election_master_status{{name="{LEASE}"}}') == 1

    def memory_mib(self) -> float:
        """Return its resident memory."""
        rss: int = psutil.Process(self._process.pid).memory_info().rss
        return rss / 2**20

    def peak_memory_mib(self) -> float:
        """Return the most resident memory that it has had since its start."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        (kib,) = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
        return int(kib) / 2**10
