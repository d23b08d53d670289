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
from rerank_operator.resources.metadata import build_metadata
from rerank_operator.settings import Settings

# The official vLLM image's user; torch needs an entry in passwd, which an arbitrary UID lacks.
USER_ID = 2000
# Hub downloads and compiler caches go below HOME. The images say the same.
HOME = "/var/cache/rerank"
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


def build_deployment(reranker: RerankerService, settings: Settings) -> Manifest:
    """Return the complete desired Deployment for `reranker`.

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
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": labels(name)},
                "spec": _pod_spec(reranker, settings),
            },
        },
    }


def _pod_spec(reranker: RerankerService, settings: Settings) -> Manifest:
    return {
        "serviceAccountName": instance(reranker.name),
        "automountServiceAccountToken": False,
        # A Service called "vllm" would inject VLLM_PORT, which vLLM reads as its own setting.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": (
            PRE_STOP_SECONDS + reranker.spec.drain_seconds + STOP_MARGIN_SECONDS
        ),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_server_container(reranker, settings)],
        "volumes": [
            {"name": "home", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": SHM_SIZE}},
        ],
    }


def _server_container(reranker: RerankerService, settings: Settings) -> Manifest:
    return {
        "name": SERVER_CONTAINER,
        "image": _image(reranker, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "ports": [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}],
        # Kubernetes puts other variables in place of $(NAME) in a value; "$$" stands for "$".
        "env": [
            {"name": name, "value": value.replace("$", "$$")}
            for name, value in sorted(environment(reranker).items())
        ],
        "resources": _resources(reranker),
        "volumeMounts": [
            {"name": "home", "mountPath": HOME},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "startupProbe": _probe("/health", failures=STARTUP_TRIES),
        "livenessProbe": _probe("/health", failures=3),
        "readinessProbe": _probe("/ready", failures=2),
        "lifecycle": {"preStop": {"sleep": {"seconds": PRE_STOP_SECONDS}}},
        # Why a load failed is in the last lines of the log; status quotes them.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _image(reranker: RerankerService, settings: Settings) -> str:
    if reranker.spec.image is not None:
        return reranker.spec.image
    if reranker.spec.accelerator.resource == NO_ACCELERATOR:
        return settings.server_image_cpu
    return settings.server_image


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


def environment(reranker: RerankerService) -> dict[str, str]:
    """Return the environment of the server; the RERANK_* part is its contract with the server."""
    spec = reranker.spec
    values: dict[str, str | int | float | bool | None] = {
        "RERANK_MODEL": spec.model.name,
        "RERANK_REVISION": spec.model.revision,
        "RERANK_SERVED_NAME": spec.model.served_name,
        "RERANK_FAMILY": spec.model.family,
        "RERANK_DTYPE": spec.engine.dtype,
        "RERANK_MAX_MODEL_LEN": spec.engine.max_model_len,
        "RERANK_TENSOR_PARALLEL_SIZE": spec.engine.tensor_parallel_size,
        "RERANK_GPU_MEMORY_UTILIZATION": spec.engine.gpu_memory_utilization,
        "RERANK_ENFORCE_EAGER": spec.engine.enforce_eager,
        "RERANK_INSTRUCTION": spec.engine.instruction,
        "RERANK_HOST": "0.0.0.0",
        "RERANK_PORT": HTTP_PORT,
        "RERANK_DRAIN_SECONDS": spec.drain_seconds,
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "PYTHONUTF8": 1,
        # Workers of one pod find each other here; the pod's address is not always known to it.
        "VLLM_HOST_IP": "127.0.0.1",
    }
    if spec.model.name.startswith("/"):
        # Without it the hub is asked about a directory, and a node without a route waits for it.
        values["HF_HUB_OFFLINE"] = 1
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
