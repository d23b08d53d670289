"""The Deployment that runs the model servers."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import (
    DEPLOYMENTS,
    HTTP_PORT,
    NO_ACCELERATOR,
    SERVER_CONTAINER,
    instance,
    labels,
    selector,
)
from rerank_operator.observed import Observed
from rerank_operator.resources.cache import (
    Found,
    build_affinity,
    build_mounts,
    build_volume_labels,
    build_volumes,
    starts_offline,
)
from rerank_operator.resources.environment import build_variables
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
from rerank_operator.resources.strategy import build_strategy
from rerank_operator.settings import Settings

# Workers of a tensor-parallel group exchange tensors here; a container's own is 64Mi.
SHM_SIZE = "1Gi"

# A pod keeps serving this long after it is marked for deletion, while endpoints are removed from
# every node: uvicorn closes its listener as soon as SIGTERM arrives.
PRE_STOP_SECONDS = 5
# From the end of the drain to the end of the engine's processes.
STOP_MARGIN_SECONDS = 15

# The port opens before the model is loaded, but importing the server takes 15 s on slow cores.
# Five minutes cover a node that is busy starting several of them.
STARTUP_TRIES = 60
PROBE_PERIOD_SECONDS = 5
# One second, the default, kills a Python process that is merely busy.
PROBE_TIMEOUT_SECONDS = 5
# Download and load of a large model count in here, not in the startup probe.
PROGRESS_DEADLINE_SECONDS = 1800

VOLUMES: list[Manifest] = [
    HOME_VOLUME,
    {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHM_SIZE}},
]
VOLUME_MOUNTS: list[Manifest] = [
    HOME_MOUNT,
    {"name": "shm", "mountPath": "/dev/shm"},
]


def build_deployment(
    reranker: RerankerService,
    settings: Settings,
    observed: Observed,
    found: Found | None = None,
) -> Manifest:
    """Return the complete desired Deployment for `reranker`.

    Without `found` the volume and the model are taken to be as they are asked for.

    `replicas` is always ours: an autoscaler writes the RerankerService through its `/scale`
    subresource, so two writers of the Deployment never meet.
    """
    name = instance(reranker.name)
    return {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "replicas": reranker.spec.replicas,
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_SECONDS,
            "selector": {"matchLabels": selector(name)},
            "strategy": build_strategy(reranker, observed),
            "template": {
                "metadata": _pod_metadata(reranker),
                "spec": _pod_spec(reranker, settings, found),
            },
        },
    }


def _pod_metadata(reranker: RerankerService) -> Manifest:
    template = reranker.spec.pod_template
    own = labels(instance(reranker.name)) | build_volume_labels(reranker)
    metadata: Manifest = {"labels": template.labels | own}
    return metadata | ({"annotations": template.annotations} if template.annotations else {})


def _pod_spec(reranker: RerankerService, settings: Settings, found: Found | None) -> Manifest:
    own = [*VOLUMES, *build_volumes(reranker)]
    return _placement(reranker, found) | {
        "serviceAccountName": instance(reranker.name),
        "automountServiceAccountToken": False,
        # A Service called "vllm" would inject VLLM_PORT, which vLLM reads as its own setting.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": (
            PRE_STOP_SECONDS + reranker.spec.drain_seconds + STOP_MARGIN_SECONDS
        ),
        "securityContext": pod_security(reranker),
        "containers": [_server_container(reranker, settings, found)],
        "volumes": merged(own, reranker.spec.pod_template.volumes, "name"),
    }


def _placement(reranker: RerankerService, found: Found | None) -> Manifest:
    template = reranker.spec.pod_template.manifest()
    pods = {"labelSelector": {"matchLabels": selector(instance(reranker.name))}}
    spread = [pods | each for each in template.get("topologySpreadConstraints", [])]
    if spread:
        template["topologySpreadConstraints"] = spread
    if affinity := build_affinity(reranker, found):
        template["affinity"] = affinity
    return {key: template[key] for key in PLACEMENT if key in template}


def _server_container(
    reranker: RerankerService, settings: Settings, found: Found | None
) -> Manifest:
    mounts = [*VOLUME_MOUNTS, *build_mounts(reranker, writes=not starts_offline(reranker))]
    model = found.model if found else None
    return {
        "name": SERVER_CONTAINER,
        "image": image(reranker, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        "env": build_variables(reranker, model.revision if model else None),
        "resources": _resources(reranker),
        "volumeMounts": merged(mounts, reranker.spec.pod_template.volume_mounts, "mountPath"),
        "startupProbe": _probe("/health", failures=STARTUP_TRIES),
        "livenessProbe": _probe("/health", failures=3),
        "readinessProbe": _probe("/ready", failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        # Why a load failed is in the last lines of the log; status quotes them.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": CONTAINER_SECURITY,
    }


def _resources(reranker: RerankerService) -> Manifest:
    spec = reranker.spec
    requests = dict(spec.resources.requests)
    limits = dict(spec.resources.limits)
    if spec.accelerator.resource != NO_ACCELERATOR:
        # An extended resource cannot be overcommitted: the limit is the request.
        count = str(spec.accelerator.count or spec.engine.tensor_parallel_size)
        requests[spec.accelerator.resource] = count
        limits[spec.accelerator.resource] = count
    return {
        key: {name: str(quantity) for name, quantity in quantities.items()}
        for key, quantities in (("requests", requests), ("limits", limits))
        if quantities
    }


def _probe(path: str, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": PROBE_PERIOD_SECONDS,
        "timeoutSeconds": PROBE_TIMEOUT_SECONDS,
        "failureThreshold": failures,
    }
