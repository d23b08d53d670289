"""etcd and kube-apiserver on loopback, each a process of ours, with an audit log of all calls."""

import base64
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import trustme
import yaml

from lab.tools import tool

T = TypeVar("T")

ADMIN = "admin"
# The user that the chart's ClusterRoleBinding is about: a missing right fails a test.
OPERATOR = "system:serviceaccount:rerank-system:rerank-operator"
TOKENS = {
    ADMIN: ("admin-token", "system:masters"),
    OPERATOR: ("operator-token", "system:serviceaccounts"),
}
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


def eventually(check: Callable[[], T], seconds: float = 15) -> T:
    """Return what `check` returns once that is true; fail with its last answer after `seconds`.

    A failed assertion or HTTP call in `check` counts as "not yet".
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
        time.sleep(0.05)


class ControlPlane:
    """The way in for tests: as an administrator, by HTTP or by kubectl."""

    def __init__(self, url: str, authority: bytes, folder: Path, apiserver: Sequence[str]) -> None:
        self.folder = folder
        self._apiserver = apiserver
        self._stack = ExitStack()
        self._url = url
        self._authority = authority
        self.http = httpx.Client(
            base_url=url,
            verify=ssl.create_default_context(cadata=authority.decode()),
            headers={"Authorization": f"Bearer {TOKENS[ADMIN][0]}"},
            trust_env=False,
            timeout=10,
        )
        self.kubectl_binary = tool("kubectl")

    def start(self) -> None:
        """Run the API server; return once it answers."""
        self._stack.enter_context(daemon(self._apiserver, self.folder / "apiserver.log"))
        eventually(lambda: self.http.get("/readyz").status_code == 200, seconds=90)
        eventually(lambda: self.get("/api/v1/namespaces/default"))

    def stop(self) -> None:
        """End the API server; etcd stays."""
        self._stack.close()

    def close(self) -> None:
        """End the API server for good."""
        self.stop()
        self.http.close()

    def kubeconfig(self, user: str) -> Path:
        """Return a file that makes its reader that user."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": self._url,
                        "certificate-authority-data": base64.b64encode(self._authority).decode(),
                    },
                }
            ],
            "users": [{"name": "test", "user": {"token": TOKENS[user][0]}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path = self.folder / f"{user.replace(':', '-')}.conf"
        path.write_text(yaml.safe_dump(config))
        return path

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

    def calls(self, user: str) -> list[dict[str, Any]]:
        """Return the audit log's entries of one user, oldest first."""
        entries = read_lines(self.folder / "audit.log")
        return [entry for entry in entries if entry["user"]["username"] == user]

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
            for entry in self.calls(OPERATOR)
            if entry["verb"] in WRITES
            and (reference := entry["objectRef"]).get("namespace") == namespace
        ]


@contextmanager
def start_control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run etcd and kube-apiserver while the block runs."""
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1")
    server.private_key_pem.write_to_path(folder / "server.key")
    for blob in server.cert_chain_pems:
        blob.write_to_path(folder / "server.crt", append=True)
    (folder / "tokens.csv").write_text(
        "\n".join(f'{token},{user},{user},"{group}"' for user, (token, group) in TOKENS.items())
    )
    (folder / "audit.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
    etcd_port, peer_port, port = free_ports(3)
    etcd_url, peer_url = f"http://127.0.0.1:{etcd_port}", f"http://127.0.0.1:{peer_port}"
    with ExitStack() as stack:
        stack.enter_context(
            daemon(
                [
                    str(tool("etcd")),
                    f"--data-dir={folder / 'etcd'}",
                    f"--listen-client-urls={etcd_url}",
                    f"--advertise-client-urls={etcd_url}",
                    f"--listen-peer-urls={peer_url}",
                    f"--initial-advertise-peer-urls={peer_url}",
                    f"--initial-cluster=default={peer_url}",
                    "--unsafe-no-fsync",
                    "--log-level=warn",
                ],
                folder / "etcd.log",
            )
        )
        command = [
            str(tool("kube-apiserver")),
            f"--etcd-servers={etcd_url}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--service-cluster-ip-range=10.0.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={folder / 'tokens.csv'}",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder / 'server.key'}",
            f"--service-account-signing-key-file={folder / 'server.key'}",
            f"--audit-policy-file={folder / 'audit.yaml'}",
            f"--audit-log-path={folder / 'audit.log'}",
            "--audit-log-mode=blocking-strict",
        ]
        plane = ControlPlane(
            f"https://127.0.0.1:{port}", authority.cert_pem.bytes(), folder, command
        )
        stack.callback(plane.close)
        plane.start()
        yield plane


@contextmanager
def daemon(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process while the block runs, and end it by its own id.

    An API server would wait a minute for its open watches; nothing here is worth that.
    """
    with log.open("wb") as stream:
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
