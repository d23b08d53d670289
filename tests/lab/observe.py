"""What tests look at on a cluster, and how they wait for it."""

import time
from collections.abc import Callable
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
