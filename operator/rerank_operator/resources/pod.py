"""What the pods of a service have in common: those that serve, and those that download."""

from collections.abc import Sequence

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.api.schema import ApiModel
from rerank_operator.names import NO_ACCELERATOR
from rerank_operator.resources.cache import HOME
from rerank_operator.settings import Settings

# The official vLLM image's user; torch needs an entry in passwd, which an arbitrary UID lacks.
USER_ID = 2000

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
}
HOME_VOLUME: Manifest = {"name": "home", "emptyDir": {}}
HOME_MOUNT: Manifest = {"name": "home", "mountPath": HOME}
# What `podTemplate` adds to the pod as it stands there. Nothing else of it gets into a pod: not who
# runs it, what it may do, nor the node's own files, network and processes.
PLACEMENT = (
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "imagePullSecrets",
)


def pod_security(reranker: RerankerService) -> Manifest:
    """Return who runs the pod. Files on a volume get their owner once, not at each start."""
    security: Manifest = {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if reranker.spec.cache is None:
        return security
    return security | {"fsGroupChangePolicy": "OnRootMismatch"}


def image(reranker: RerankerService, settings: Settings) -> str:
    """Return the server's image."""
    if reranker.spec.image is not None:
        return reranker.spec.image
    if reranker.spec.accelerator.resource == NO_ACCELERATOR:
        return settings.server_image_cpu
    return settings.server_image


def merged(own: Sequence[Manifest], theirs: Sequence[ApiModel], key: str) -> list[Manifest]:
    """Return our entries, and those of the user's that take no place of ours.

    The schema refuses such; an object from before it knew one must still give a valid pod.
    """
    taken = {entry[key] for entry in own}
    added = [entry.manifest() for entry in theirs]
    return [*own, *(entry for entry in added if entry[key] not in taken)]
