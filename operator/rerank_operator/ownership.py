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
    cache = reranker.spec.cache
    retained = (
        manifest["kind"] == names.CLAIMS.name
        and cache is not None
        and (cache.retain or cache.existing_claim is not None)
    )
    annotations = {names.OWNER_UID_ANNOTATION: reranker.uid}
    metadata = manifest["metadata"] | {"annotations": annotations}
    if not retained:
        metadata["ownerReferences"] = [owner]
    annotations[names.HASH_ANNOTATION] = drift.digest(manifest | {"metadata": metadata})
    return manifest | {"metadata": metadata}


def is_ours(observed: Mapping[str, Any], reranker: RerankerService) -> bool:
    """Tell by UID, in either place: a hand edit may have taken one of the two away.

    What another object controls is that one's: KEDA copies our labels and annotations.
    """
    metadata = observed["metadata"]
    if _is_retained(observed):
        # Of this service or of an earlier one of the same name, which has left it to us.
        return bool(metadata["labels"].get(names.OWNER_LABEL) == names.instance(reranker.name))
    owners = metadata.get("ownerReferences", [])
    if any(owner.get("controller") and owner["uid"] != reranker.uid for owner in owners):
        return False
    return metadata.get("annotations", {}).get(names.OWNER_UID_ANNOTATION) == reranker.uid or any(
        owner["uid"] == reranker.uid for owner in owners
    )


def outlives(child: Mapping[str, Any], kept: str | None) -> bool:
    """Tell whether a child stays that is not wanted any more.

    That is a volume that is retained, and a Job of the download `kept`, which has done its work.
    """
    label = child["metadata"].get("labels", {}).get(names.DOWNLOAD_LABEL)
    return _is_retained(child) or (label is not None and label == kept)


def _is_retained(observed: Mapping[str, Any]) -> bool:
    """Tell whether this is a claim of ours that outlives its service."""
    metadata = observed["metadata"]
    return (
        observed["kind"] == names.CLAIMS.name
        and names.OWNER_UID_ANNOTATION in metadata.get("annotations", {})
        and names.OWNER_LABEL in metadata.get("labels", {})
        and not metadata.get("ownerReferences")
    )


def applied_hash(manifest: Mapping[str, Any]) -> str | None:
    """Return the hash of what was last applied to an object; None for one that is not ours."""
    hash_: str | None = manifest["metadata"].get("annotations", {}).get(names.HASH_ANNOTATION)
    return hash_
