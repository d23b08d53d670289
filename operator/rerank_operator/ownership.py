"""The marks on a child that tell whose it is, and what was last applied to it."""

from collections.abc import Mapping
from typing import Any

from rerank_operator import drift, names
from rerank_operator.api import Manifest, RerankerService


def with_owner(reranker: RerankerService, manifest: Manifest) -> Manifest:
    """Return `manifest` as it is applied: with its owner, and the hash of it all."""
    owner = {
        "apiVersion": names.RERANKERS.api_version,
        "kind": names.RERANKERS.name,
        "name": reranker.name,
        "uid": reranker.uid,
        "controller": True,
    }
    annotations = {names.OWNER_UID_ANNOTATION: reranker.uid}
    metadata = manifest["metadata"] | {"annotations": annotations, "ownerReferences": [owner]}
    annotations[names.HASH_ANNOTATION] = drift.digest(manifest | {"metadata": metadata})
    return manifest | {"metadata": metadata}


def is_ours(observed: Mapping[str, Any], reranker: RerankerService) -> bool:
    """Tell by UID, in either place: a hand edit may have taken one of the two away.

    What another object controls is that one's: KEDA copies our labels and annotations.
    """
    metadata = observed["metadata"]
    owners = metadata.get("ownerReferences", [])
    if any(owner.get("controller") and owner["uid"] != reranker.uid for owner in owners):
        return False
    return metadata.get("annotations", {}).get(names.OWNER_UID_ANNOTATION) == reranker.uid or any(
        owner["uid"] == reranker.uid for owner in owners
    )


def applied_hash(manifest: Mapping[str, Any]) -> str | None:
    """Return the hash of what was last applied to an object; None for one that is not ours."""
    hash_: str | None = manifest["metadata"].get("annotations", {}).get(names.HASH_ANNOTATION)
    return hash_
