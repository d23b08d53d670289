"""Every string that other programs see: group, labels, kinds, condition types, reasons."""

import re
from hashlib import sha256
from typing import NamedTuple

GROUP = "rerank.dev"
VERSION = "v1alpha1"
FIELD_MANAGER = "rerank-operator"

# The operator watches what carries this label; its value is `instance(name)` of the owner.
OWNER_LABEL = f"{GROUP}/service"
# On each child: what we last applied, and for which object. The UID tells a child of ours from
# that of an earlier RerankerService of the same name, even when its ownerReference is gone.
HASH_ANNOTATION = f"{GROUP}/applied-hash"
OWNER_UID_ANNOTATION = f"{GROUP}/owner-uid"

# On Jobs that download a model, and their pods: which one, from where, to which volume.
DOWNLOAD_LABEL = f"{GROUP}/download"
# On all pods whose cache is a volume, and on no other: which claim, as `volume(name)`.
VOLUME_LABEL = f"{GROUP}/volume"

HTTP_PORT = 8080
SERVICE_PORT = 80
# Where a pod that downloads says how far it is.
PROGRESS_PATH = "/progress"
SERVER_CONTAINER = "server"
DOWNLOAD_CONTAINER = "download"
# `accelerator.resource` of pods that ask for no device: vLLM runs on the CPU.
NO_ACCELERATOR = "none"


# What autoscalers read of the server: gauges without labels.
QUEUE_DEPTH_METRIC = "rerank_queue_depth"
QUEUE_WAIT_METRIC = "rerank_queue_wait_seconds"
UTILIZATION_METRIC = "rerank_utilization"


class Kind(NamedTuple):
    """What it takes to address objects of one kind."""

    api_version: str
    plural: str
    name: str


RERANKERS = Kind(f"{GROUP}/{VERSION}", "rerankerservices", "RerankerService")
DEPLOYMENTS = Kind("apps/v1", "deployments", "Deployment")
SERVICES = Kind("v1", "services", "Service")
SERVICE_ACCOUNTS = Kind("v1", "serviceaccounts", "ServiceAccount")
DISRUPTION_BUDGETS = Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
CLAIMS = Kind("v1", "persistentvolumeclaims", "PersistentVolumeClaim")
JOBS = Kind("batch/v1", "jobs", "Job")
NETWORK_POLICIES = Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
POD_MONITORS = Kind("monitoring.coreos.com/v1", "podmonitors", "PodMonitor")
AUTOSCALERS = Kind("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
SCALED_OBJECTS = Kind("keda.sh/v1alpha1", "scaledobjects", "ScaledObject")
PODS = Kind("v1", "pods", "Pod")
# Ours on a RerankerService, those of others on a Job. Neither watched nor children; the API server
# forgets them after an hour.
EVENTS = Kind("events.k8s.io/v1", "events", "Event")
# Says which of several operators is at work. Neither watched nor a child.
LEASES = Kind("coordination.k8s.io/v1", "leases", "Lease")

CHILD_KINDS = (
    SERVICE_ACCOUNTS,
    SERVICES,
    CLAIMS,
    JOBS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    NETWORK_POLICIES,
    AUTOSCALERS,
)
WATCHED_KINDS = (RERANKERS, *CHILD_KINDS, PODS)
# Kinds of children that a cluster may lack. They are not watched: kopf gives up when such a kind
# goes, and does not see one come. The slow listing finds what others do to them.
OPTIONAL_KINDS = (POD_MONITORS, SCALED_OBJECTS)
# Without these a service is as good as with them: they have conditions of their own.
SIDE_KINDS = (POD_MONITORS, SCALED_OBJECTS, AUTOSCALERS)
KIND_BY_NAME = {kind.name: kind for kind in (*WATCHED_KINDS, *OPTIONAL_KINDS)}

# Condition types.
READY = "Ready"
AVAILABLE = "Available"
MODEL_CACHED = "ModelCached"
MONITORED = "Monitored"
AUTOSCALER_READY = "AutoscalerReady"
CONDITIONS = frozenset({READY, AVAILABLE, MODEL_CACHED, MONITORED, AUTOSCALER_READY})

# Reasons. They are API: once released, never renamed or reused.
ALL_PODS_READY = "AllPodsReady"
PODS_AVAILABLE = "PodsAvailable"
SCALED_TO_ZERO = "ScaledToZero"
NO_PODS_AVAILABLE = "NoPodsAvailable"
INVALID_SPEC = "InvalidSpec"
NAME_CONFLICT = "NameConflict"
QUOTA_EXCEEDED = "QuotaExceeded"
APPLY_REFUSED = "ApplyRefused"
PODS_REFUSED = "PodsRefused"
PAUSED = "Paused"
SECRET_NOT_FOUND = "SecretNotFound"
POD_MONITOR_APPLIED = "PodMonitorApplied"
POD_MONITOR_MISSING = "PodMonitorMissing"
SCALING = "Scaling"
AT_MAXIMUM = "AtMaximum"
SHORT_OF_GPUS = "ShortOfGPUs"
AUTOSCALER_STARTING = "AutoscalerStarting"
AUTOSCALER_SWITCHING = "AutoscalerSwitching"
AUTOSCALER_FAILED = "AutoscalerFailed"
METRIC_MISSING = "MetricMissing"
KEDA_MISSING = "KedaMissing"
KEDA_TOO_OLD = "KedaTooOld"
IMAGE_PULL_FAILED = "ImagePullFailed"
CONTAINER_REFUSED = "ContainerRefused"
OUT_OF_MEMORY = "OutOfMemory"
CRASH_LOOPING = "CrashLooping"
WAITING_FOR_GPU = "WaitingForGPU"
UNSCHEDULABLE = "Unschedulable"
ROLLOUT_STUCK = "RolloutStuck"
CLAIM_NOT_FOUND = "ClaimNotFound"
CLAIM_UNFIT = "ClaimUnfit"
DOWNLOADED = "Downloaded"
DOWNLOADING = "Downloading"
DOWNLOAD_FAILED = "DownloadFailed"
LOADING_MODEL = "LoadingModel"
STARTING_PODS = "StartingPods"
ROLLING_OUT = "RollingOut"

# Deployment name + "-" + hash of the ReplicaSet has to stay a DNS label of 63 characters.
_MAX_INSTANCE = 52
_DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def instance(reranker_name: str) -> str:
    """Return the name of the children, and the label value, of a RerankerService.

    It is the object's own name where that is a short DNS label. A name with dots, a leading digit
    or over 52 characters is cut and carries a hash, since a Service or a label takes no such name.
    """
    if len(reranker_name) <= _MAX_INSTANCE and _DNS_LABEL.fullmatch(reranker_name):
        return reranker_name
    digest = sha256(reranker_name.encode()).hexdigest()[:8]
    safe = re.sub(r"[^a-z0-9-]", "-", reranker_name)
    if not safe[0].isalpha():
        safe = f"r-{safe}"
    return f"{safe[: _MAX_INSTANCE - 9].rstrip('-')}-{digest}"


def volume(claim: str) -> str:
    """Return the label value of a claim, whose name may be too long for one."""
    return instance(claim)


def autoscaler(instance: str, of_keda: bool) -> str:
    """Return the name of the HorizontalPodAutoscaler: the one that KEDA makes, or our own."""
    return f"keda-hpa-{instance}" if of_keda else instance


def selector(instance: str) -> dict[str, str]:
    """Return the labels that pick the pods of one RerankerService, and no other pod."""
    return {"app.kubernetes.io/name": "reranker", OWNER_LABEL: instance}


def download_selector(instance: str) -> dict[str, str]:
    """Return the labels that pick the pods that download its model, which serve nothing."""
    return {"app.kubernetes.io/name": "reranker-download", OWNER_LABEL: instance}


def labels(instance: str) -> dict[str, str]:
    """Return the labels of every child."""
    return {
        **selector(instance),
        "app.kubernetes.io/instance": instance,
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
    }
