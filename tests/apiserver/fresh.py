"""What an operator that has just started would still have to do."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from apiserver.objects import Objects
from rerank_operator.api import Manifest
from rerank_operator.cluster import api_path
from rerank_operator.errors import Conflict, Unavailable
from rerank_operator.names import (
    EVENTS,
    FIELD_MANAGER,
    HASH_ANNOTATION,
    OPTIONAL_KINDS,
    RERANKERS,
    WATCHED_KINDS,
    Kind,
)
from rerank_operator.reconcile import Reconciler
from rerank_operator.settings import Settings
from rerank_operator.store import Key, Store


def changes(service: Objects) -> list[str]:
    """Return what a fresh start would change. It is asked twice.

    As it is, and without the marks of what was applied before: then it applies all there should
    be, for the API server to say what of that would change.
    """
    return [change for trusting in (True, False) for change in _pass(service, trusting)]


def _pass(service: Objects, trusting: bool) -> list[str]:
    store = Store()
    for kind in (*WATCHED_KINDS, *OPTIONAL_KINDS):
        page = service.plane.get(api_path(kind, service.namespace))
        items = [
            item | {"apiVersion": kind.api_version, "kind": kind.name} for item in page["items"]
        ]
        for item in items:
            if not trusting and kind != RERANKERS:
                item["metadata"].get("annotations", {}).pop(HASH_ANNOTATION, None)
        listing = store.listing(kind)
        listing.take(items, int(page["metadata"]["resourceVersion"]))
        listing.end()
    cluster = _DryRun(service)
    reconciler = Reconciler(store, cluster, Settings(), lambda: datetime.now(UTC))
    asyncio.run(reconciler.reconcile(Key(service.namespace, service.name)))
    return cluster.changes


class _DryRun:
    """Notes what a pass would change, and changes nothing."""

    def __init__(self, service: Objects) -> None:
        self.changes: list[str] = []
        self._service = service

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        return self._service.plane.get(f"{api_path(kind, namespace)}/{name}") or None

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest:
        return self._apply(kind, manifest, "")

    async def apply_new(self, kind: Kind, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        if await self.get(kind, self._service.namespace, name):
            raise Conflict(name)
        return await self.apply(kind, manifest)

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        return self._apply(kind, manifest, "/status")

    async def create(self, kind: Kind, manifest: Manifest) -> None:
        self.changes.append(f"create {kind.name}")

    async def events(self, manifest: Manifest, reason: str) -> list[Manifest]:
        path = api_path(EVENTS, self._service.namespace)
        query = f"?fieldSelector=regarding.uid={manifest['metadata']['uid']},reason={reason}"
        return list(self._service.plane.get(path + query)["items"])

    async def delete(self, kind: Kind, manifest: Manifest) -> None:
        self.changes.append(f"delete {kind.name} {manifest['metadata']['name']}")

    def _apply(self, kind: Kind, manifest: Manifest, subresource: str) -> Manifest:
        name = manifest["metadata"]["name"]
        path = f"{api_path(kind, self._service.namespace)}/{name}"
        before = self._service.plane.get(path)
        answer = self._service.plane.http.patch(
            path + subresource,
            params={"fieldManager": FIELD_MANAGER, "force": "true", "dryRun": "All"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            content=json.dumps(manifest),
        )
        if answer.is_error or not before:
            # What was not made has no version, so that the pass cannot go on.
            self.changes.append(f"apply {kind.name} {name}: {answer.text}")
            raise Unavailable(answer.text)
        after: Manifest = answer.json()
        if _content(before) != _content(after):
            self.changes.append(f"apply{subresource} {kind.name} {name}")
        return after


def _content(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without what each write of it moves."""
    moved = ("managedFields", "resourceVersion", "generation", "creationTimestamp", "uid")
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key not in moved}
    return {**body, "metadata": metadata}
