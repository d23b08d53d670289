"""The Job that downloads the model to its volume, before pods start that read it from there."""

import json
from hashlib import sha256

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.drift import quantity
from rerank_operator.names import (
    DOWNLOAD_CONTAINER,
    DOWNLOAD_LABEL,
    HTTP_PORT,
    JOBS,
    NO_ACCELERATOR,
    download_selector,
    instance,
    labels,
)
from rerank_operator.resources.cache import (
    Found,
    build_affinity,
    build_mounts,
    build_volume_labels,
    build_volumes,
    download_id,
)
from rerank_operator.resources.environment import build_download_variables
from rerank_operator.resources.metadata import build_metadata
from rerank_operator.resources.pod import (
    CONTAINER_SECURITY,
    HOME_MOUNT,
    HOME_VOLUME,
    PLACEMENT,
    image,
    merged,
    pod_security,
)
from rerank_operator.settings import Settings

# It never gives up: a token may come, or a way to the hub. Between two tries of a container that
# fails Kubernetes waits up to five minutes, in one and the same pod.
BACKOFF_LIMIT = 2**31 - 1
# The downloader ends at once.
GRACE_SECONDS = 5
# It waits for the network, mostly.
REQUESTS = {"cpu": "100m", "memory": "512Mi"}
LIMITS = {"cpu": "2", "memory": "4Gi"}


def build_job(reranker: RerankerService, settings: Settings, found: Found | None) -> Manifest:
    """Return the Job. Its template cannot be changed, so the name tells one from another."""
    download = download_id(reranker, found.claim if found else None)
    marks = {DOWNLOAD_LABEL: download}
    metadata = build_metadata(reranker)
    template = reranker.spec.pod_template
    own = labels(instance(reranker.name)) | download_selector(instance(reranker.name)) | marks
    pod_metadata: Manifest = {"labels": template.labels | own | build_volume_labels(reranker)}
    if template.annotations:
        pod_metadata["annotations"] = template.annotations
    spec = {
        "backoffLimit": BACKOFF_LIMIT,
        "template": {"metadata": pod_metadata, "spec": _pod_spec(reranker, settings, found)},
    }
    digest = sha256(json.dumps([download, spec], sort_keys=True).encode()).hexdigest()
    name = f"{metadata['name']}-{digest[:10]}"
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.name,
        "metadata": metadata | {"name": name, "labels": metadata["labels"] | marks},
        "spec": spec,
    }


def _pod_spec(reranker: RerankerService, settings: Settings, found: Found | None) -> Manifest:
    template = reranker.spec.pod_template
    return _placement(reranker, found) | {
        "serviceAccountName": instance(reranker.name),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "OnFailure",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(reranker),
        "containers": [
            {
                "name": DOWNLOAD_CONTAINER,
                "image": image(reranker, settings),
                "imagePullPolicy": settings.image_pull_policy,
                "command": ["python3", "-m", "rerank_server.download"],
                "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
                "env": build_download_variables(reranker),
                "resources": _resources(reranker),
                "volumeMounts": merged(
                    [HOME_MOUNT, *build_mounts(reranker, writes=True)],
                    template.volume_mounts,
                    "mountPath",
                ),
                # The operator reads the commit there, or why it failed, in place of the log.
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "securityContext": CONTAINER_SECURITY,
            }
        ],
        "volumes": merged([HOME_VOLUME, *build_volumes(reranker)], template.volumes, "name"),
    }


def _resources(reranker: RerankerService) -> Manifest:
    """Return limits of CPU and memory where the server has some, and no more than those.

    A quota may ask every pod for limits, and it counts this one beside those that serve. By itself
    it has none: of memory it would be one of speed, with Xet.
    """
    asked = reranker.spec.resources.limits
    limits = {
        name: min(str(asked[name]), most, key=quantity)
        for name, most in LIMITS.items()
        if name in asked
    }
    requests = {
        name: min(text, limits.get(name, text), key=quantity) for name, text in REQUESTS.items()
    }
    return {"requests": requests} | ({"limits": limits} if limits else {})


def _placement(reranker: RerankerService, found: Found | None) -> Manifest:
    """Return where the servers may run: a volume stays in the zone where its first pod ran."""
    template = reranker.spec.pod_template.manifest()
    placement = {
        key: template[key]
        for key in PLACEMENT
        if key in template and key != "topologySpreadConstraints"
    }
    if affinity := build_affinity(reranker, found):
        placement["affinity"] = affinity
    resource = reranker.spec.accelerator.resource
    if resource != NO_ACCELERATOR:
        # Many clusters keep pods off nodes with a device, and let those in that ask for one.
        # Source: Kubernetes documentation, admission plugin ExtendedResourceToleration.
        device = {"key": resource, "operator": "Exists", "effect": "NoSchedule"}
        tolerations = placement.get("tolerations", [])
        placement["tolerations"] = [*tolerations, *([device] if device not in tolerations else [])]
    return placement
