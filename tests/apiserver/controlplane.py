"""etcd and kube-apiserver on loopback, each a process of ours, with an audit log."""

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx

from lab import pki
from lab.controlplane import Commands
from lab.tools import tool

T = TypeVar("T")

# Names of kubeconfig files. The operator's is the user that the chart's ClusterRoleBinding is
# about: a missing right fails a test.
ADMIN = "admin"
OPERATOR = "operator"
OPERATOR_USER = "system:serviceaccount:rerank-system:rerank-operator"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}


def eventually(check: Callable[[], T], seconds: float = 25, pause: float = 0.05) -> T:
    """Return what `check` returns once that is true; fail with its last answer after `seconds`.

    A failed assertion or HTTP call in `check` counts as "not yet". The time by default is shorter
    than the operator's from one listing to the next, which would make up for a lost event.
    """
    deadline = time.monotonic() + seconds
    while True:
        outcome: object
        try:
            result = check()
            if result:
                return result
            outcome = result
        except (AssertionError, httpx.HTTPError) as error:
            outcome = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not after {seconds} s: {outcome!r}")
        time.sleep(pause)


class ControlPlane:
    """The way in for tests: as an administrator, by HTTP or by kubectl."""

    def __init__(self, folder: Path, commands: Commands) -> None:
        self.folder = folder
        self.commands = commands
        self._apiserver: ExitStack | None = None
        self._etcd: ExitStack | None = None
        context = ssl.create_default_context(cafile=commands.pki / "ca.crt")
        context.load_cert_chain(commands.pki / "admin.crt", commands.pki / "admin.key")
        url = f"https://{commands.address}:{commands.port}"
        self.http = httpx.Client(base_url=url, verify=context, trust_env=False, timeout=10)
        self.kubectl_binary = tool("kubectl")

    def start_etcd(self) -> None:
        """Run etcd, with the data that is there, unless it runs."""
        if self._etcd is None:
            self._etcd = ExitStack()
            self._etcd.enter_context(daemon(self.commands.etcd(), self.folder / "etcd.log"))

    def stop_etcd(self) -> None:
        """End etcd; the API server stays, and can do nothing."""
        if self._etcd is not None:
            self._etcd.close()
            self._etcd = None

    def start(self) -> None:
        """Run the API server, unless it runs; return once it answers."""
        if self._apiserver is None:
            self._apiserver = ExitStack()
            log = self.folder / "apiserver.log"
            self._apiserver.enter_context(daemon(self.commands.apiserver(), log))
        eventually(lambda: self.http.get("/readyz").status_code == 200, seconds=90)
        eventually(lambda: self.get("/api/v1/namespaces/default"))

    def stop(self) -> None:
        """End the API server; etcd stays."""
        if self._apiserver is not None:
            self._apiserver.close()
            self._apiserver = None

    def close(self) -> None:
        """End both for good."""
        self.stop()
        self.stop_etcd()
        self.http.close()

    def kubeconfig(self, user: str) -> Path:
        """Return a file that makes its reader that user."""
        return self.commands.pki / f"{user}.conf"

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Return what kubectl prints, on stdout or else on stderr."""
        done = subprocess.run(
            [self.kubectl_binary, "--kubeconfig", self.kubeconfig(ADMIN), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not check or done.returncode == 0, done.stderr
        return done.stdout or done.stderr

    def apply(self, manifests: str, namespace: str | None = None, check: bool = True) -> str:
        """Apply YAML as a user would; `namespace` is for objects that name none."""
        scope = ["-n", namespace] if namespace else []
        return self.kubectl("apply", *scope, "-f", "-", stdin=manifests, check=check)

    def get(self, path: str) -> dict[str, Any]:
        """Return the object at an API path, or {} if there is none."""
        response = self.http.get(path)
        if response.status_code == 404:
            return {}
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def patch(self, path: str, body: object) -> None:
        """Change an object as a hand edit does."""
        headers = {"Content-Type": "application/merge-patch+json"}
        self.http.patch(path, json=body, headers=headers).raise_for_status()

    def delete(self, path: str) -> None:
        """Delete the object at an API path."""
        self.http.delete(path).raise_for_status()

    def calls(self) -> list[dict[str, Any]]:
        """Return the audit log's entries, oldest first: the operator's."""
        return read_lines(self.commands.audit_log)

    def writers(self, namespace: str) -> list[tuple[str, datetime, datetime]]:
        """Return which operator wrote there, by its identity, and each write's start and end."""
        return [
            (
                entry["userAgent"].partition("(")[2].rstrip(")"),
                datetime.fromisoformat(entry["requestReceivedTimestamp"]),
                datetime.fromisoformat(entry["stageTimestamp"]),
            )
            for entry in self.calls()
            if entry["verb"] in WRITES and entry["objectRef"].get("namespace") == namespace
        ]

    def writes(self, namespace: str) -> list[str]:
        """Return what the operator has written in a namespace: verb, resource and name."""
        return [
            "/".join(
                part
                for part in (
                    f"{entry['verb']} {reference['resource']}",
                    reference.get("subresource"),
                    reference.get("name"),
                )
                if part
            )
            for entry in self.calls()
            if entry["verb"] in WRITES
            and (reference := entry["objectRef"]).get("namespace") == namespace
        ]


@contextmanager
def start_control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run etcd and kube-apiserver while the block runs."""
    port, etcd_port, peer_port = free_ports(3)
    commands = Commands(
        pki=folder / "pki",
        data=folder / "etcd",
        audit_log=folder / "audit.log",
        address="127.0.0.1",
        port=port,
        etcd_port=etcd_port,
        etcd_peer_port=peer_port,
    )
    operator = {OPERATOR: (OPERATOR_USER, "system:serviceaccounts")}
    pki.write(commands.pki, f"https://127.0.0.1:{port}", ["127.0.0.1"], operator)
    plane = ControlPlane(folder, commands)
    try:
        plane.start_etcd()
        plane.start()
        yield plane
    finally:
        plane.close()


@contextmanager
def daemon(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the block runs, and end it by its own id.

    An API server would wait a minute for its open watches; nothing here is worth that.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a log that is being written: its last line may be half there."""
    return [json.loads(line) for line in path.read_text().splitlines(True) if line[-1] == "\n"]


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
