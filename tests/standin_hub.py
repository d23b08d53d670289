"""A stand-in for the Hugging Face hub: as much of its HTTP as its client library asks for.

    python standin_hub.py PORT org/name=DIRECTORY[=TOKEN] ...

Any revision of a model but a name that begins with "no" is its one commit; `PUT /moved` makes that
another. `PUT /fault` with the name of one makes it misbehave, and `GET /requests` tells what was
asked. Needs the standard library alone, so that it also runs in a pod.
"""

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

# busy: 429. broken: 500. cut: connections break in the middle of a file, and go on by Range.
# short: files end too early, in good order. slow: 1 MiB a second. stalled: nothing after the head.
FAULTS = ("", "busy", "broken", "cut", "short", "slow", "stalled")
API = re.compile(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^?]+))?$")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)$")
PIECE = 2**16
# The client keeps what has come in whole blocks of 10 MiB.
CUT_PIECES = 161


class Hub(ThreadingHTTPServer):
    """Serves directories as repositories; attributes may be changed while it does."""

    daemon_threads = True

    def __init__(
        self, models: Mapping[str, Path], port: int = 0, address: str = "127.0.0.1"
    ) -> None:
        super().__init__((address, port), Handler)
        self.models = models
        self.fault = ""
        # Of a model that is private; those of others are served to everybody.
        self.tokens: dict[str, str] = {}
        self.gated: set[str] = set()
        self.moved = 0
        self.requests: list[tuple[str, str, str]] = []

    @property
    def url(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def commit(self, repository: str) -> str:
        """Return what all revisions of a repository are."""
        return hashlib.sha1(f"{repository} {self.moved}".encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/moved":
            self.server.moved += 1
        elif self.path == "/fault" and text in FAULTS:
            self.server.fault = text
        else:
            self._send(404)
            return
        self._send(200)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/requests":
            self._json(self.server.requests)
            return
        authorization = self.headers.get("Authorization", "")
        self.server.requests.append((self.command, path, authorization))
        if match := API.match(path):
            repository, part, revision = match.groups()
        elif match := FILE.match(path):
            repository, revision, part = match.groups()
        else:
            self._refuse(404, "")
            return
        if not self._let_in(repository, revision or "main", authorization):
            return
        if not path.startswith("/api/"):
            self._file(repository, part)
        elif part == "tree":
            self._json([self._tree_entry(repository, name) for name in self._names(repository)])
        else:
            siblings = [self._sibling(repository, name) for name in self._names(repository)]
            sha = self.server.commit(repository)
            self._json({"id": repository, "sha": sha, "siblings": siblings})

    def _let_in(self, repository: str, revision: str, authorization: str) -> bool:
        token = self.server.tokens.get(repository)
        if self.server.fault == "busy":
            self._refuse(429, "")
        elif self.server.fault == "broken":
            self._refuse(500, "")
        elif repository not in self.server.models:
            # The real one calls what is not there private, to those without a token.
            self._refuse(404 if authorization else 401, "RepoNotFound" if authorization else "")
        elif token is not None and authorization != f"Bearer {token}":
            self._refuse(401, "")
        elif repository in self.server.gated:
            self._refuse(403, "GatedRepo")
        elif revision.startswith("no"):
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _names(self, repository: str) -> list[str]:
        folder = self.server.models[repository]
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    def _sibling(self, repository: str, name: str) -> dict[str, object]:
        data = (self.server.models[repository] / name).read_bytes()
        entry: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": _oid(data)}
        if name.endswith(".safetensors"):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 134}
        return entry

    def _tree_entry(self, repository: str, name: str) -> dict[str, object]:
        data = (self.server.models[repository] / name).read_bytes()
        entry: dict[str, object] = {
            "type": "file",
            "path": name,
            "size": len(data),
            "oid": _oid(data),
        }
        if name.endswith(".safetensors"):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
        return entry

    def _file(self, repository: str, name: str) -> None:
        data = (self.server.models[repository] / name).read_bytes()
        large = name.endswith(".safetensors")
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        body = data[start:]
        if self.server.fault == "short" and self.command == "GET":
            body = body[: len(body) // 2]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest() if large else _oid(data)}"')
        self.send_header("X-Repo-Commit", self.server.commit(repository))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self._body(body)

    def _body(self, body: bytes) -> None:
        for number, piece in enumerate(body[i : i + PIECE] for i in range(0, len(body), PIECE)):
            if self.server.fault == "cut" and number == CUT_PIECES:
                self.close_connection = True
                return
            while self.server.fault == "stalled":
                time.sleep(0.1)
            if self.server.fault == "slow":
                time.sleep(PIECE / 2**20)
            self.wfile.write(piece)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode())

    def _refuse(self, status: int, code: str) -> None:
        phrase = HTTPStatus(status).phrase
        headers = {"X-Error-Code": code, "X-Error-Message": phrase} if code else {}
        if status == 429:
            headers["Retry-After"] = "1"
        self._send(status, json.dumps({"error": phrase}).encode(), headers)

    def _send(self, status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _oid(data: bytes) -> str:
    """Return what git calls these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def standin_hub(models: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve `models`, by the names of their repositories, on loopback while the block runs."""
    with Hub(models) as hub:
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}).start()
        try:
            yield hub
        finally:
            hub.fault = ""
            hub.shutdown()


if __name__ == "__main__":
    port, *words = sys.argv[1:]
    served = [word.split("=") for word in words]
    hub = Hub({name: Path(folder) for name, folder, *_ in served}, int(port), "0.0.0.0")
    hub.tokens = {name: token[0] for name, _, *token in served if token}
    hub.serve_forever()
