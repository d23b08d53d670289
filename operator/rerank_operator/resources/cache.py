"""The volume that keeps the model: the claim for it, and how pods have it."""

import json
from hashlib import sha256
from typing import NamedTuple

from rerank_operator.api import Manifest, ModelStatus, RerankerService
from rerank_operator.api.cache import DEFAULT_SIZE, Cache
from rerank_operator.drift import quantity
from rerank_operator.names import (
    CLAIMS,
    OWNER_UID_ANNOTATION,
    VOLUME_LABEL,
    instance,
    volume,
)
from rerank_operator.resources.metadata import build_metadata

VOLUME = "cache"
# Hub downloads and compiler caches go below HOME. The images say the same.
HOME = "/var/cache/rerank"
# The volume is found inside of it. The rest is an emptyDir: it depends on image and device.
PATH = f"{HOME}/hub"
SHARED_MODES = {"ReadWriteMany", "ReadOnlyMany"}


class Found(NamedTuple):
    """What was seen of the volume and the model before the children are built.

    `claim` is None while it is not there, `model` unless what is asked for is downloaded; whether
    a Job is to do that, `downloads` tells. While `waits` is true the pods stay as they are.
    """

    claim: Manifest | None
    model: ModelStatus | None
    waits: bool
    downloads: bool


def is_directory(reranker: RerankerService) -> bool:
    """Tell whether the model is no repository of the hub."""
    return reranker.spec.model.name.startswith("/")


def prefetches(reranker: RerankerService) -> bool:
    """Tell whether a Job downloads the model, so that the pods never ask the hub."""
    cache = reranker.spec.cache
    return cache is not None and cache.prefetch and not is_directory(reranker)


def starts_offline(reranker: RerankerService) -> bool:
    """Tell whether pods find the model on a disk, and never ask the hub for it."""
    return is_directory(reranker) or prefetches(reranker)


def claim_name(reranker: RerankerService, cache: Cache) -> str:
    """Return the name of the claim, the user's or ours."""
    return cache.existing_claim or instance(reranker.name)


def build_claim(reranker: RerankerService, observed: Manifest | None) -> Manifest | None:
    """Return our claim; None where none is asked for.

    What cannot be changed in the `observed` one is taken from there: its class, its access modes,
    and its size when that is larger. One of ours is the user's for as long as
    `existingClaim` names it: it is built as it is, once, to be without an owner.
    """
    cache = reranker.spec.cache
    if cache is None:
        return None
    if cache.existing_claim is None:
        spec = _asked(cache, observed)
    elif observed is not None and _goes_with(reranker, observed):
        spec = _held(observed["spec"])
    else:
        return None
    return {
        "apiVersion": CLAIMS.api_version,
        "kind": CLAIMS.name,
        "metadata": build_metadata(reranker),
        "spec": spec,
    }


def _asked(cache: Cache, observed: Manifest | None) -> Manifest:
    spec: Manifest = {
        "accessModes": sorted(cache.access_modes or ["ReadWriteOnce"]),
        "resources": {"requests": {"storage": str(cache.size or DEFAULT_SIZE)}},
    }
    if cache.storage_class_name is not None:
        spec["storageClassName"] = cache.storage_class_name
    return spec | (_kept(spec, observed["spec"]) if observed else {})


def _goes_with(reranker: RerankerService, observed: Manifest) -> bool:
    """Tell whether a claim was made by us, and not to outlive its service."""
    metadata = observed["metadata"]
    return (
        metadata["name"] == instance(reranker.name)
        and OWNER_UID_ANNOTATION in metadata.get("annotations", {})
        and any(owner["uid"] == reranker.uid for owner in metadata.get("ownerReferences", []))
    )


def _held(spec: Manifest) -> Manifest:
    """Return what we write of a claim's spec, unchanged."""
    kept: Manifest = {
        part: spec[part] for part in ("accessModes", "storageClassName") if part in spec
    }
    return kept | {"resources": {"requests": {"storage": spec["resources"]["requests"]["storage"]}}}


def _kept(wanted: Manifest, held: Manifest) -> Manifest:
    """Return the parts of a claim's spec that stay as they are: a write of them is refused."""
    kept = {part: held[part] for part in differences(wanted, held)}
    size, held_size = (spec["resources"]["requests"]["storage"] for spec in (wanted, held))
    if quantity(held_size) > quantity(size):
        kept["resources"] = {"requests": {"storage": held_size}}
    return kept


def differences(wanted: Manifest, held: Manifest) -> list[str]:
    """Return what is asked for in another way than the claim has it, and cannot be changed."""
    found = []
    if sorted(wanted["accessModes"]) != sorted(held["accessModes"]):
        found.append("accessModes")
    if wanted.get("storageClassName", held.get("storageClassName")) != held.get("storageClassName"):
        found.append("storageClassName")
    return [part for part in found if part in held]


def download_id(reranker: RerankerService, claim: Manifest | None) -> str:
    """Return what changes when something else has to be downloaded, or to another volume."""
    model = reranker.spec.model
    parts = [
        model.name,
        model.revision,
        model.hub_endpoint,
        model.trust_remote_code,
        claim["metadata"]["uid"] if claim else None,
    ]
    return sha256(json.dumps(parts).encode()).hexdigest()[:16]


def build_volumes(reranker: RerankerService) -> list[Manifest]:
    """Return the volume of the cache, if there is one."""
    cache = reranker.spec.cache
    if cache is None:
        return []
    return [
        {
            "name": VOLUME,
            "persistentVolumeClaim": {"claimName": claim_name(reranker, cache)},
        }
    ]


def build_mounts(reranker: RerankerService, writes: bool) -> list[Manifest]:
    """Return where a container has it. Who does not write must not be able to."""
    if reranker.spec.cache is None:
        return []
    return [{"name": VOLUME, "mountPath": PATH} | ({} if writes else {"readOnly": True})]


def build_volume_labels(reranker: RerankerService) -> dict[str, str]:
    """Return the labels of the pods that mount it: `build_affinity` goes by them."""
    cache = reranker.spec.cache
    return {VOLUME_LABEL: volume(claim_name(reranker, cache))} if cache else {}


def build_affinity(reranker: RerankerService, found: Found | None) -> Manifest | None:
    """Return the affinity of the pods: the user's, and one node where the volume takes only one.

    A volume that is ReadWriteOnce can be attached to one node; a pod on another waits for ever.
    The term counts the pods whose cache it is, of whatever service, and no others: one that
    was there before the volume does not hold it to its own node. The first is free to go anywhere.

    Source: Kubernetes documentation, "Inter-pod affinity and anti-affinity": a pod whose own labels
    match its term, while no other pod's do, is let in.
    """
    affinity: Manifest = reranker.spec.pod_template.manifest().get("affinity", {})
    if not has_one_node(reranker, found):
        return affinity or None
    term = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": build_volume_labels(reranker)},
    }
    kind = "requiredDuringSchedulingIgnoredDuringExecution"
    pods = affinity.get("podAffinity") or {}
    return affinity | {"podAffinity": pods | {kind: [*(pods.get(kind) or []), term]}}


def has_one_node(reranker: RerankerService, found: Found | None) -> bool:
    """Tell whether a volume keeps all pods on one node."""
    cache, claim = reranker.spec.cache, found.claim if found else None
    if cache is None:
        return False
    modes = claim["spec"]["accessModes"] if claim else cache.access_modes or []
    return not SHARED_MODES & {*modes}
