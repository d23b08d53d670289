"""The kopf surface: every event becomes a key. No decisions live here."""

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import kopf

from rerank_operator.names import CHILD_KINDS, OWNER_LABEL, PODS, RERANKERS
from rerank_operator.store import Key, Store, owner_key
from rerank_operator.workqueue import WorkQueue

# Calls in a pass end after half a minute each, and a pass makes a handful.
STUCK_SECONDS = 300


@dataclass(frozen=True)
class Memo:
    """What handlers reach; kopf hands it to each of them."""

    store: Store
    queue: WorkQueue[Key]


class Backoffs:
    """Endless delays: kopf gives a watch up, and the process with it, when these run out."""

    def __iter__(self) -> Iterator[float]:
        delay = 0.5
        while True:
            yield delay * random.uniform(0.5, 1)
            delay = min(30.0, delay * 2)


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: watching, and nothing else of what it can do."""
    settings = kopf.OperatorSettings()
    # Looking for new kinds and namespaces would take rights on all of both.
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Backoffs()
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.process.ultimate_exiting_timeout = 10
    for kind in (*CHILD_KINDS, PODS):
        settings.watching.label_selectors[kind.plural] = OWNER_LABEL
    return settings


@kopf.on.login()
def login(**arguments: Any) -> kopf.ConnectionInfo | None:
    """Return the credentials of the pod's service account, or else of the user's kubeconfig."""
    if "KUBECONFIG" in os.environ:
        return kopf.login_with_kubeconfig(**arguments)
    if (info := kopf.login_with_service_account(**arguments)) is None:
        return kopf.login_with_kubeconfig(**arguments)
    # By address rather than by name: the operator should not need the cluster's DNS.
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    return replace(info, server=f"https://{host}:{port}")


@kopf.on.probe(id="queue")
async def probe(memo: Memo, **_: Any) -> str:
    """Fail when a pass does not end. That the event loop runs is shown by answering at all.

    Only `PermanentError` will do: any other exception makes kopf's endpoint hang.
    """
    seconds = memo.queue.longest_running_seconds()
    if seconds > STUCK_SECONDS:
        raise kopf.PermanentError(f"a pass has been running for {seconds:.0f} s")
    return "ok"


@kopf.on.event(RERANKERS.api_version, RERANKERS.plural)
async def on_reranker(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    """Remember the object and ask for a pass.

    kopf drops what an event handler raises and never calls it again, so nothing here can fail for
    a reason worth retrying; the work queue does the retrying.
    """
    key = owner_key(event["object"])
    held = memo.store.reranker(key) if key else None
    # A status that is written anew at each failure must not end the wait that follows it.
    _note(event, memo, urgent=_generation(held) != _generation(event["object"]))


@kopf.on.event("apps/v1", "deployments")
@kopf.on.event("v1", "services")
@kopf.on.event("v1", "serviceaccounts")
@kopf.on.event("policy/v1", "poddisruptionbudgets")
@kopf.on.event("networking.k8s.io/v1", "networkpolicies")
@kopf.on.event("v1", "pods")
async def on_child(event: kopf.RawEvent, memo: Memo, **_: Any) -> None:
    """A child moved: the pass belongs to the object named in its label, before and after."""
    _note(event, memo, urgent=False)


def _generation(body: Mapping[str, Any] | None) -> tuple[str, int] | None:
    """Return what changes when something else is asked for; None for no object."""
    return (body["metadata"]["uid"], body["metadata"]["generation"]) if body else None


def _note(event: kopf.RawEvent, memo: Memo, urgent: bool) -> None:
    for key in memo.store.put(event["object"], deleted=event["type"] == "DELETED"):
        memo.queue.add(key, urgent)
