"""What tests look at on a cluster, and how they wait for it."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any

from lab.errors import LabError
from lab.target import Target


def ready(kube: Target, name: str, namespace: str) -> bool:
    """Tell whether the operator calls the present generation of an object Ready."""
    found = kube.get("rerankerservice", name, f"--namespace={namespace}")
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and condition["observedGeneration"] == found["metadata"]["generation"]
        for condition in found.get("status", {}).get("conditions", [])
    )


def told(kube: Target, name: str, namespace: str, condition: str = "Ready") -> tuple[str, str]:
    """Return reason and message of a condition, as of the present generation; else two ""."""
    found = kube.get("rerankerservice", name, f"--namespace={namespace}")
    for entry in found.get("status", {}).get("conditions", []):
        if entry["type"] == condition and (
            entry["observedGeneration"] == found["metadata"]["generation"]
        ):
            return entry["reason"], entry["message"]
    return "", ""


def children(kube: Target, name: str, namespace: str) -> list[dict[str, Any]]:
    """Return what the operator made for an object, by its label."""
    kinds = "deployments,services,serviceaccounts,poddisruptionbudgets,networkpolicies"
    where = [f"--namespace={namespace}", f"--selector=rerank.dev/service={name}"]
    found: list[dict[str, Any]] = kube.get(kinds, *where)["items"]
    return found


def eventually(claim: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until `claim` holds; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            if claim():
                return
        except LabError as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {what} ({last})")


@contextmanager
def watched(kube: Target, kind: str, *where: str) -> Iterator[Callable[[], list[set[str]]]]:
    """Watch objects of a kind. Yields what tells the names there were, after each change."""
    command = [kube.kubectl_binary, f"--kubeconfig={kube.kubeconfig}", "get", kind, *where]
    command += ["--watch", "--output-watch-events", "--output=json"]
    with TemporaryFile("w+") as file:
        process = subprocess.Popen(command, stdout=file)

        def history() -> list[set[str]]:
            file.seek(0)
            present: set[str] = set()
            found = [present]
            for event in _documents(file.read()):
                name = event["object"]["metadata"]["name"]
                present = present - {name} if event["type"] == "DELETED" else present | {name}
                found.append(present)
            return found

        try:
            yield history
        finally:
            process.terminate()
            process.wait(10)


def _documents(text: str) -> Iterator[dict[str, Any]]:
    """Yield JSON documents that follow one another; the last may be on its way."""
    decoder = json.JSONDecoder()
    with suppress(json.JSONDecodeError):
        while text := text.strip():
            document, end = decoder.raw_decode(text)
            yield document
            text = text[end:]
