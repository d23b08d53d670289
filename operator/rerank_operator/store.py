"""What the watches have told: objects by kind and owner.

kopf lists for itself when it starts, and again after a gap, but tells no handler that a listing
is over or which objects it no longer held. So each kind is also listed by us: all of them before
the first pass, so that absence means something, and then slowly for ever, which drops what went
without an event.
"""

import sys
from collections.abc import Callable, Container, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from rerank_operator.api import Manifest
from rerank_operator.names import (
    KIND_BY_NAME,
    OWNER_LABEL,
    PODS,
    RERANKERS,
    Kind,
    instance,
)


class Key(NamedTuple):
    """One RerankerService, by the name that its children and their labels carry."""

    namespace: str
    instance: str


class Identity(NamedTuple):
    """One object of any kind."""

    kind: Kind
    namespace: str
    name: str


class Held(NamedTuple):
    """One object as it is kept: as text, which takes a third of the memory."""

    version: int
    owner: Key
    text: bytes


def owner_key(body: Mapping[str, Any]) -> Key | None:
    """Return whose pass an object belongs to; None for an object without our label."""
    metadata = body["metadata"]
    if body["kind"] == RERANKERS.name:
        return Key(metadata["namespace"], instance(metadata["name"]))
    label = metadata.get("labels", {}).get(OWNER_LABEL)
    return Key(metadata["namespace"], label) if label else None


class Store:
    """Objects as last seen. Only the event loop's thread uses it, so nothing here is locked."""

    def __init__(self) -> None:
        self._objects: dict[Identity, Held] = {}
        self._owned: dict[Key, set[Identity]] = {}
        # UID -> version of what went since the last listing: a listing may still hold it. "Went"
        # includes losing our label, after which the same UID can come back, in a later version.
        self._gone: dict[Kind, dict[str, int]] = {kind: {} for kind in KIND_BY_NAME.values()}

    def put(self, body: Mapping[str, Any], deleted: bool = False) -> set[Key]:
        """Take in one object and return the keys it changed something for.

        An older version than the one held, a repetition, and an object known to be deleted change
        nothing.
        """
        identity = _identity(body)
        kind, uid = identity.kind, body["metadata"]["uid"]
        version = _version(body)
        held = self._objects.get(identity)
        if held is not None and version < held.version:
            return set()
        if deleted:
            self._gone[kind][uid] = version
            return self._drop(identity)
        if version <= self._gone[kind].get(uid, -1):
            return set()
        if held is not None and version == held.version:
            return set()
        changed = self._drop(identity)
        key = owner_key(body)
        if key is not None:
            text = msgspec.json.encode(stripped(body))
            self._objects[identity] = Held(version, key, text)
            self._owned.setdefault(key, set()).add(identity)
            changed.add(key)
        return changed

    def knows(self, body: Mapping[str, Any]) -> bool:
        """Tell whether this version of an object is held, or a later one."""
        held = self._objects.get(_identity(body))
        return held is not None and _version(body) <= held.version

    def listing(self, kind: Kind) -> "Listing":
        """Return what takes in a full listing of a kind."""
        return Listing(self, kind)

    def drop_others(
        self, kind: Kind, listed: Container[Identity], version: int, unknown: Container[str]
    ) -> set[Key]:
        """Drop what a full listing lacked, and return the keys it changed something for.

        What is newer than `version`, that of the listing, is kept, and what is in namespaces that
        are `unknown`.
        """
        changed: set[Key] = set()
        names = [each for each in self._objects if each.kind == kind]
        for identity in [each for each in names if each.namespace not in unknown]:
            if identity not in listed and self._objects[identity].version <= version:
                changed |= self._drop(identity)
        self._gone[kind].clear()
        return changed

    def keys(self) -> set[Key]:
        """Return a key for each RerankerService."""
        return {
            Key(identity.namespace, instance(identity.name))
            for identity in self._objects
            if identity.kind == RERANKERS
        }

    def reranker(self, key: Key) -> Manifest | None:
        """Return the RerankerService itself, or None if there is none."""
        return next(iter(self.of_kind(key, RERANKERS)), None)

    def children(self, key: Key) -> list[Manifest]:
        """Return the objects labelled as its children, pods apart."""
        return self._of(key, lambda kind: kind not in (RERANKERS, PODS))

    def pods(self, key: Key) -> list[Manifest]:
        """Return its pods, without their specs."""
        return self.of_kind(key, PODS)

    def of_kind(self, key: Key, kind: Kind) -> list[Manifest]:
        """Return the objects of one kind that are its."""
        return self._of(key, lambda other: other == kind)

    def _of(self, key: Key, wanted: Callable[[Kind], bool]) -> list[Manifest]:
        identities = sorted(self._owned.get(key, ()))
        return [_read(self._objects[each].text) for each in identities if wanted(each.kind)]

    def _drop(self, identity: Identity) -> set[Key]:
        held = self._objects.pop(identity, None)
        if held is None:
            return set()
        owned = self._owned[held.owner]
        owned.discard(identity)
        if not owned:
            del self._owned[held.owner]
        return {held.owner}


class Listing:
    """A full listing of one kind, taken in page by page."""

    def __init__(self, store: Store, kind: Kind) -> None:
        self._store = store
        self._kind = kind
        self._listed: set[Identity] = set()
        self._unknown: set[str] = set()
        self._version = sys.maxsize

    def take(self, bodies: Iterable[Mapping[str, Any]], version: int) -> set[Key]:
        """Take in a page and return the keys it changed something for.

        Of the versions of several listings the oldest counts.
        """
        self._version = min(self._version, version)
        changed: set[Key] = set()
        for body in bodies:
            metadata = body["metadata"]
            self._listed.add(Identity(self._kind, metadata["namespace"], metadata["name"]))
            changed |= self._store.put(body)
        return changed

    def leave_out(self, namespace: str) -> None:
        """Leave a namespace as it is known: it cannot be listed."""
        self._unknown.add(namespace)

    def end(self) -> set[Key]:
        """Drop what no page held, and return the keys it changed something for."""
        return self._store.drop_others(self._kind, self._listed, self._version, self._unknown)


def _identity(body: Mapping[str, Any]) -> Identity:
    metadata = body["metadata"]
    return Identity(KIND_BY_NAME[body["kind"]], metadata["namespace"], metadata["name"])


def _version(body: Mapping[str, Any]) -> int:
    # Comparable as integers; documented so since Kubernetes 1.35, and true of etcd before.
    return int(body["metadata"]["resourceVersion"])


def stripped(body: Mapping[str, Any]) -> Manifest:
    """Drop what no pass reads: it is most of the size of an object."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    unread = {"spec"} if body["kind"] == PODS.name else set()
    return {key: body[key] for key in body if key not in unread} | {"metadata": metadata}


# A pass reads the same few objects again and again, and several run at once.
@lru_cache(maxsize=128)
def _read(text: bytes) -> Manifest:
    body: Manifest = msgspec.json.decode(text)
    return body
