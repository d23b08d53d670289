"""`python -m rerank_server.download`: fill a hub cache, for servers that start offline.

Takes the model settings of rerank-server, and HF_ENDPOINT, HF_TOKEN and HF_HUB_CACHE. Logs its
progress, tells it to whoever asks at its host and port, and leaves a JSON object with the commit,
or else one sentence on what went wrong, where Kubernetes reads why a container ended.
"""

import errno
import fcntl
import fnmatch
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from types import FrameType
from typing import NoReturn

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import disable_progress_bars

from rerank_server.errors import ModelUnusable
from rerank_server.hub import patterns
from rerank_server.listening import listen
from rerank_server.logs import leave_last_words, set_up_logging, speak_utf8
from rerank_server.settings import Settings, read_settings

log = logging.getLogger("rerank_server.download")

PROGRESS_SECONDS = 10.0
PROGRESS_PATH = "/progress"
# For each piece of what a caller says.
REQUEST_SECONDS = 2.0
# The library waits 10 s for each piece of an answer. What still does not grow for so long hangs.
STALL_SECONDS = 300.0
LOCK_FILE = ".rerank-download.lock"
LOCK_TRY_SECONDS = 2.0


def main() -> None:
    """Download, and end with 0 once all of it is there."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Download what `arguments` and the environment name, and return the exit code.

    Raises:
        SystemExit: the settings are wrong; stderr says how.
    """
    # As process 1 of a container, a program without a handler never gets the signal.
    signal.signal(signal.SIGTERM, _end)
    speak_utf8()
    settings = read_settings(arguments)
    set_up_logging(settings.log_level, None)
    disable_progress_bars()
    # It has a handler of its own, and would write lines that are no JSON.
    library = logging.getLogger("huggingface_hub")
    library.handlers.clear()
    library.propagate = True
    # A line for each request, with the signature in an address of a content network.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        outcome = download(settings, Path(constants.HF_HUB_CACHE))
    except ModelUnusable as error:
        log.error(str(error))
        leave_last_words(str(error))
        return 1
    except Exception as error:
        # The hub's library, and what it talks HTTP and Xet with, raise many kinds.
        text = _sentence(error, settings)
        log.error(text, exc_info=error)
        leave_last_words(text)
        return 1
    log.info("downloaded", extra=outcome)
    leave_last_words(json.dumps(outcome))
    return 0


def download(settings: Settings, cache: Path) -> dict[str, str | int]:
    """Have a whole snapshot of the model in `cache`; return its name, commit and size in bytes.

    Raises:
        ModelUnusable: what the repository holds is not for us, or does not fit on the volume.
        Exception: any of the hub's library.
    """
    with _only_one(cache):
        info = HfApi().model_info(settings.model, revision=settings.revision, files_metadata=True)
        commit = str(info.sha)
        files = {
            str(file.lfs.sha256 if file.lfs else file.blob_id): file.size or 0
            for file in info.siblings or []
            if _wanted(file.rfilename, settings)
        }
        if not any(file.rfilename.endswith(".safetensors") for file in info.siblings or []):
            raise ModelUnusable(
                f"{settings.model} at {commit} has no *.safetensors: its weights are in a format "
                "that has to be converted first, or in another revision"
            )
        blobs = cache / repo_folder_name(repo_id=settings.model, repo_type="model") / "blobs"
        _drop_remains(blobs)
        # A file that is half there is begun anew.
        whole = sum(size for name, size, _ in _seen(blobs, files) if name in files)
        _require_space(cache, settings.model, sum(files.values()) - whole)
        about = {"model": settings.name, "revision": commit}
        log.info("downloading", extra=about | {"total_bytes": sum(files.values())})
        with _told(blobs, files, settings), _watched(blobs, files, settings):
            snapshot_download(
                settings.model,
                revision=commit,
                cache_dir=cache,
                allow_patterns=patterns(settings.trust_remote_code),
            )
    return {"model": settings.model, "revision": commit, "bytes": sum(files.values())}


def _wanted(name: str, settings: Settings) -> bool:
    return any(fnmatch.fnmatch(name, one) for one in patterns(settings.trust_remote_code))


def _end(number: int, _: FrameType | None) -> NoReturn:
    # Not by an exception: the threads that download would be waited for.
    os._exit(128 + number)


@contextmanager
def _only_one(cache: Path) -> Iterator[None]:
    """Wait until nobody else fills this volume: two would fetch the same files twice."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / LOCK_FILE).open("a") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    log.info("waiting for another download to this volume")
                waiting = True
                time.sleep(LOCK_TRY_SECONDS)
            except OSError as error:
                # Some network file systems know no locks. The library's files are whole or absent
                # all the same.
                log.warning("this volume has no locks", extra={"error": str(error)})
                break
        yield


def _drop_remains(blobs: Path) -> None:
    """Delete what a killed download left; the library begins each file anew."""
    for file in blobs.glob("*.incomplete"):
        if time.time() - file.stat().st_mtime > STALL_SECONDS:
            file.unlink(missing_ok=True)


def _seen(blobs: Path, files: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """Return name, size and time of change of each blob of `files`, half-done ones included."""
    found = []
    for path in blobs.glob("*"):
        if path.name.partition(".")[0] in files:
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            found.append((path.name, stat.st_size, stat.st_mtime_ns))
    return found


def _require_space(cache: Path, model: str, missing: int) -> None:
    usage = shutil.disk_usage(cache)
    if missing > usage.free:
        raise ModelUnusable(
            f"{model} needs {_gib(missing)} more, and the volume has {_gib(usage.free)} free of "
            f"{_gib(usage.total)}: make it larger (spec.cache.size), or remove other models from it"
        )


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


@contextmanager
def _watched(blobs: Path, files: Mapping[str, int], settings: Settings) -> Iterator[None]:
    """Log how far it is while the block runs, and end the process when it gets nowhere."""
    over = threading.Event()
    total = sum(files.values())

    def watch() -> None:
        started = changed = time.monotonic()
        before = _seen(blobs, files)
        while not over.wait(min(PROGRESS_SECONDS, STALL_SECONDS)):
            now = time.monotonic()
            seen = _seen(blobs, files)
            if seen != before:
                before, changed = seen, now
            done = sum(size for _, size, _ in seen)
            log.info(
                "downloading",
                extra={
                    "done_bytes": done,
                    "total_bytes": total,
                    "percent": round(100 * done / total) if total else None,
                    "seconds": round(now - started),
                },
            )
            if now - changed >= STALL_SECONDS:
                text = (
                    f"nothing of {settings.model} came from {constants.ENDPOINT} for "
                    f"{STALL_SECONDS:.0f} s: it is begun again"
                )
                log.error(text)
                leave_last_words(text)
                os._exit(1)

    threading.Thread(target=watch, name="progress", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextmanager
def _told(blobs: Path, files: Mapping[str, int], settings: Settings) -> Iterator[None]:
    """Answer whoever asks how far it is, while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS

        def do_GET(self) -> None:
            if self.path != PROGRESS_PATH:
                self.send_error(404)
                return
            done = sum(size for _, size, _ in _seen(blobs, files))
            body = json.dumps({"done_bytes": done, "total_bytes": sum(files.values())}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing: it is asked every few seconds."""

    try:
        server = Listener(listen(settings.host, settings.port), Handler)
    except OSError as error:
        # A server may be at work there. Nothing depends on it.
        log.info("nobody can ask how far it is", extra={"error": str(error)})
        yield
        return
    with server:
        threading.Thread(target=server.serve_forever, name="told", daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


class Listener(ThreadingTCPServer):
    """Waits for no caller.

    Not http.server's own, which looks up its name, for as long as that takes.
    """

    daemon_threads = True

    def __init__(self, listening: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listening

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: whoever asked has gone, or was too slow."""


def _sentence(error: Exception, settings: Settings) -> str:
    """Return what went wrong and what to do about it, without any part of the token."""
    model, endpoint = settings.model, constants.ENDPOINT
    # What the library could not do over HTTP it wraps, and says that a file is not on the disk.
    cause = error.__cause__ if isinstance(error.__cause__, HfHubHTTPError) else error
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 0
    token = "spec.model.tokenSecretRef (HF_TOKEN)"
    if isinstance(error, HFValidationError):
        return f"{model!r} is no repository id such as Qwen/Qwen3-Reranker-0.6B"
    if isinstance(cause, GatedRepoError):
        return (
            f"{model} is gated: accept its terms on {endpoint}/{model}, and give the token of an "
            f"account that may read it as {token}"
        )
    if isinstance(cause, RevisionNotFoundError):
        return f"{model} has no revision {settings.revision or 'main'}: correct it, or leave it out"
    if status == 401 or isinstance(cause, RepositoryNotFoundError):
        given = "the token given may not read it" if os.environ.get("HF_TOKEN") else "it is private"
        return (
            f"model not found: {endpoint} has no {model}, or {given} ({status}): check the name, "
            f"and for a private model give a token as {token}"
        )
    if status == 403:
        return f"{endpoint} forbids {model} (403): give a token that may read it as {token}"
    if status == 429:
        return (
            f"{endpoint} takes no more requests for now (429): it is tried again; with a token "
            f"({token}) more are allowed"
        )
    if status:
        return f"{endpoint} answered {status} for {model}: it is tried again"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the volume is full: make it larger (spec.cache.size) than {model} needs"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return (
            f"cannot write to {constants.HF_HUB_CACHE} ({error.strerror}): the volume has to be "
            f"writable for user {os.getuid()}"
        )
    if "Consistency check failed" in str(error):
        return f"a file of {model} arrived incomplete from {endpoint}: it is tried again"
    reason = " ".join(str(error).split())[:200]
    return (
        f"cannot download {model} from {endpoint} ({type(error).__name__}: {reason}): check the "
        "way there (spec.model.hubEndpoint, a proxy in spec.podTemplate.env); it is tried again"
    )


if __name__ == "__main__":
    main()
