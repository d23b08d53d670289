"""The downloader as a process, against a stand-in for the hub: what it keeps, and what it says."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import httpx
import pytest

from rerank_server.download import download as fill
from rerank_server.engines.checkpoint import open_checkpoint
from rerank_server.errors import ModelUnusable
from rerank_server.settings import Settings
from server_process import ROOT, wait_for
from standin_hub import Hub, standin_hub

MODEL = "org/tiny"


class Ended(NamedTuple):
    """How a download ended."""

    code: int
    records: list[dict[str, Any]]

    @property
    def said(self) -> str:
        """Its last line."""
        return str(self.records[-1]["message"])


@pytest.fixture
def repository(tiny_model: Path, tmp_path: Path) -> Path:
    """The small reranker, and files beside it that the server has no use for."""
    folder = shutil.copytree(tiny_model, tmp_path / "repository", copy_function=os.symlink)
    for name in ("pytorch_model.bin", "model.py", "onnx.onnx"):
        (folder / name).write_text("not for us")
    return folder


@pytest.fixture
def hub(repository: Path) -> Iterator[Hub]:
    with standin_hub({MODEL: repository}) as hub:
        yield hub


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


RUN = ("-m", "rerank_server.download")
# The same, in less patience.
HASTY = "from rerank_server import download; download.STALL_SECONDS = 2; download.main()"


def start(
    hub: Hub, cache: Path, *flags: str, run: Sequence[str] = RUN, **environment: str
) -> "subprocess.Popen[str]":
    own = {name: os.environ[name] for name in ("PATH", "HOME")} | {
        "PYTHONPATH": str(ROOT / "server"),
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(cache),
        "RERANK_MODEL": MODEL,
    }
    return subprocess.Popen(
        [sys.executable, *run, *flags],
        env=own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end(process: "subprocess.Popen[str]") -> Ended:
    output, _ = process.communicate(timeout=60)
    return Ended(process.returncode, [json.loads(line) for line in output.splitlines()])


def download(hub: Hub, cache: Path, *flags: str, **environment: str) -> Ended:
    return end(start(hub, cache, *flags, **environment))


def names(cache: Path, commit: str) -> set[str]:
    snapshot = cache / "models--org--tiny" / "snapshots" / commit
    return {path.name for path in snapshot.iterdir()}


def test_branch_is_resolved_and_kept_as_its_commit(hub: Hub, cache: Path) -> None:
    ended = download(hub, cache, "--revision", "main")

    assert ended.code == 0, ended.said
    assert ended.records[-1]["message"] == "downloaded"
    assert ended.records[-1]["revision"] == hub.commit(MODEL)
    assert ended.records[-1]["bytes"] > 2**20
    files = names(cache, hub.commit(MODEL))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= files
    assert files.isdisjoint({"pytorch_model.bin", "model.py", "onnx.onnx"})


def test_server_opens_what_was_downloaded_offline(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download(hub, cache)
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)

    checkpoint = open_checkpoint(Settings(model=MODEL, revision=hub.commit(MODEL)))

    assert checkpoint.weights[0].stat().st_size > 2**20
    assert len(hub.requests) == asked


def test_code_is_downloaded_only_where_it_is_trusted(hub: Hub, cache: Path) -> None:
    download(hub, cache, RERANK_TRUST_REMOTE_CODE="true")

    assert "model.py" in names(cache, hub.commit(MODEL))


def test_second_download_fetches_no_file(hub: Hub, cache: Path) -> None:
    download(hub, cache)
    hub.requests.clear()

    ended = download(hub, cache)

    assert ended.code == 0
    assert [path for _, path, _ in hub.requests if "/resolve/" in path] == []


def test_connection_that_breaks_is_gone_on_with(hub: Hub, cache: Path) -> None:
    hub.fault = "cut"

    ended = download(hub, cache)

    assert ended.code == 0, ended.said


FAILURES: dict[str, tuple[dict[str, str], str]] = {
    "no model, no token": (
        {"RERANK_MODEL": "org/none"},
        "has no org/none, or it is private (401): check the name, and for a private model give a "
        "token as spec.model.tokenSecretRef",
    ),
    "no model": (
        {"RERANK_MODEL": "org/none", "HF_TOKEN": "hf_canary"},
        "has no org/none, or the token given may not read it (404)",
    ),
    "no revision": ({"RERANK_REVISION": "none"}, "org/tiny has no revision none: correct it"),
    "private": ({"RERANK_MODEL": "org/private", "HF_TOKEN": "hf_canary"}, "(401): check the name"),
    "gated": ({"RERANK_MODEL": "org/gated", "HF_TOKEN": "hf_canary"}, "org/gated is gated: accept"),
    "bin only": ({"RERANK_MODEL": "org/old"}, "has no *.safetensors: its weights are in a format"),
    "no name": ({"RERANK_MODEL": "a/b/c"}, "is no repository id such as"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_refusal_is_one_sentence_with_a_remedy(
    hub: Hub, repository: Path, cache: Path, tmp_path: Path, case: str
) -> None:
    environment, words = FAILURES[case]
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pytorch_model.bin").touch()
    hub.models = {
        **hub.models,
        "org/private": repository,
        "org/gated": repository,
        "org/old": tmp_path / "old",
    }
    hub.tokens["org/private"] = "other"
    hub.gated.add("org/gated")

    ended = download(hub, cache, **environment)

    assert ended.code == 1
    assert words in ended.said
    assert "\n" not in ended.said
    assert "hf_canary" not in json.dumps(ended.records)


def test_token_opens_a_private_model(hub: Hub, cache: Path) -> None:
    hub.tokens[MODEL] = "hf_canary"

    ended = download(hub, cache, HF_TOKEN="hf_canary")

    assert ended.code == 0, ended.said
    assert "hf_canary" not in json.dumps(ended.records)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("busy", "takes no more requests for now (429): it is tried again"),
        ("broken", "answered 500 for org/tiny: it is tried again"),
        ("short", "a file of org/tiny arrived incomplete"),
    ],
)
def test_fault_of_the_hub_is_told_and_the_next_try_gets_it_all(
    hub: Hub, cache: Path, fault: str, words: str
) -> None:
    hub.fault = fault
    failed = download(hub, cache)
    hub.fault = ""

    ended = download(hub, cache)

    assert failed.code == 1
    assert words in failed.said
    assert ended.code == 0, ended.said
    weights = cache / "models--org--tiny" / "snapshots" / hub.commit(MODEL) / "model.safetensors"
    assert weights.stat().st_size == (hub.models[MODEL] / "model.safetensors").stat().st_size


def test_no_way_to_the_hub_is_told(hub: Hub, cache: Path) -> None:
    ended = download(hub, cache, HF_ENDPOINT="http://127.0.0.1:9")

    assert ended.code == 1
    assert "cannot download org/tiny from http://127.0.0.1:9 (ConnectError" in ended.said
    assert "spec.model.hubEndpoint" in ended.said


def test_volume_that_cannot_be_written_is_told(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()

    ended = download(hub, file / "cache")

    assert ended.code == 1
    assert "Not a directory" in ended.said


def test_two_at_once_fetch_each_file_once(hub: Hub, cache: Path) -> None:
    both = [start(hub, cache), start(hub, cache)]

    ended = [end(process) for process in both]

    assert [one.code for one in ended] == [0, 0]
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert len(fetched) == len(set(fetched))
    waited = [
        one for one in ended if one.records[0]["message"].startswith("waiting for another download")
    ]
    assert len(waited) == 1


def test_slow_download_says_how_far_it_is(hub: Hub, cache: Path) -> None:
    hub.fault = "slow"

    ended = download(hub, cache)

    told = [one for one in ended.records if "percent" in one]
    assert ended.code == 0, ended.said
    assert told[0]["seconds"] == 10
    assert 0 <= told[0]["done_bytes"] <= told[0]["total_bytes"]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def done_bytes(port: int) -> int:
    """Return how far a download says it is; -1 while it does not answer."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/progress", trust_env=False).json()
    except httpx.HTTPError:
        return -1
    assert answer["total_bytes"] > 2**20
    return int(answer["done_bytes"])


def test_running_download_answers_how_far_it_is(hub: Hub, cache: Path) -> None:
    hub.fault = "stalled"
    port = free_port()
    process = start(hub, cache, "--port", str(port))
    wait_for(lambda: done_bytes(port) == 0)
    other = httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
    hub.fault = "slow"
    wait_for(lambda: done_bytes(port) > 2**20)

    ended = end(process)

    assert ended.code == 0, ended.said
    assert other.status_code == 404


@pytest.mark.parametrize("said", [b"", b"GET /prog"])
def test_caller_that_does_not_finish_keeps_neither_others_nor_the_download_waiting(
    hub: Hub, cache: Path, said: bytes
) -> None:
    hub.fault = "stalled"
    port = free_port()
    process = start(hub, cache, "--port", str(port))
    wait_for(lambda: done_bytes(port) == 0)

    with socket.create_connection(("127.0.0.1", port)) as caller:
        caller.sendall(said)
        wait_for(lambda: done_bytes(port) == 0)
        hub.fault = ""
        ended = end(process)

    assert ended.code == 0, ended.said


def test_port_that_is_taken_keeps_nothing_from_being_downloaded(hub: Hub, cache: Path) -> None:
    ended = download(hub, cache, "--port", str(hub.server_address[1]))

    assert ended.code == 0, ended.said
    assert any(one["message"] == "nobody can ask how far it is" for one in ended.records)


def test_download_that_hangs_ends_itself_and_says_so(hub: Hub, cache: Path) -> None:
    hub.fault = "stalled"

    ended = end(start(hub, cache, run=("-c", HASTY)))

    assert ended.code == 1
    assert ended.said == f"nothing of org/tiny came from {hub.url} for 2 s: it is begun again"


def test_download_that_is_told_to_end_does_so_at_once(hub: Hub, cache: Path) -> None:
    hub.fault = "stalled"
    process = start(hub, cache)
    wait_for(lambda: any(method == "GET" and "/resolve/" in p for method, p, _ in hub.requests))

    process.terminate()
    ended = end(process)

    assert ended.code == 143


def test_model_that_does_not_fit_is_told_before_it_is_begun(
    hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = SimpleNamespace(total=2**21, free=2**20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)

    with pytest.raises(ModelUnusable, match=r"needs 0\.01 GiB more, and the volume has 0\.00 GiB"):
        fill(Settings(model=MODEL), cache)

    assert not any("/resolve/" in path for _, path, _ in hub.requests)


def test_what_a_killed_download_left_is_deleted_and_what_another_writes_is_not(
    hub: Hub, cache: Path
) -> None:
    blobs = cache / "models--org--tiny" / "blobs"
    blobs.mkdir(parents=True)
    old, new = blobs / "a.1.incomplete", blobs / "a.2.incomplete"
    for file in (old, new):
        file.touch()
    os.utime(old, (0, 0))

    download(hub, cache)

    assert not old.exists()
    assert new.exists()
