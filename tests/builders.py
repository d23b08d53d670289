"""Valid objects, all defaulted; a test names only what it is about."""

from typing import Any

from rerank_operator.api import Manifest, RerankerService, parse
from rerank_operator.names import GROUP, VERSION


def make_body(
    name: str = "demo",
    namespace: str = "search",
    uid: str = "uid-1",
    generation: int = 1,
    version: int = 1,
    **spec: Any,
) -> Manifest:
    """Return a RerankerService as the API server holds it; `spec` is in camelCase."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "RerankerService",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "generation": generation,
            "resourceVersion": str(version),
        },
        "spec": {"model": {"name": "Qwen/Qwen3-Reranker-0.6B"}} | spec,
    }


def make_reranker(**arguments: Any) -> RerankerService:
    """Return the parsed form of `make_body` with the same arguments."""
    return parse(make_body(**arguments))


def make_deployment(
    wanted: int = 1, generation: int = 1, observed: int = 1, down: int = 0, **counts: Any
) -> Manifest:
    """Return the Deployment of `make_body()`; all pods are ready unless `counts` says otherwise.

    `down` is how many pods its strategy lets be down in place; 0 is the strategy that surges.
    """
    status = {
        "observedGeneration": observed,
        "replicas": wanted,
        "updatedReplicas": wanted,
        "readyReplicas": wanted,
        "availableReplicas": wanted,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "demo", "namespace": "search", "generation": generation},
        "spec": {
            "replicas": wanted,
            "template": {"spec": {}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 0 if down else 1, "maxUnavailable": down},
            },
        },
        "status": status | counts,
    }


def make_pod(
    state: Manifest | None = None,
    last_state: Manifest | None = None,
    unschedulable: str = "",
    ready: bool = False,
    **metadata: Any,
) -> Manifest:
    """Return a pod of `make_body()`; `state` and `last_state` are its server container's."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if unschedulable:
        conditions.append({"type": "PodScheduled", "status": "False", "message": unschedulable})
    container = {"name": "server", "state": state, "lastState": last_state or {}, "restartCount": 3}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "demo-abc", "namespace": "search"} | metadata,
        "status": {
            "conditions": conditions,
            "containerStatuses": [container] if state is not None else [],
        },
    }
