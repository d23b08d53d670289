"""What keeps a pod from being ready, by what kubelet and scheduler say of it."""

import re
from collections.abc import Sequence

from rerank_operator import names
from rerank_operator.api import Manifest, SecretUse
from rerank_operator.observed import conditions, is_ending, is_gone, unschedulable, waits_for_device
from rerank_operator.status.conditions import Finding

_MAX_LOG = 400

_TEMPLATE_LABEL = "pod-template-hash"
_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
# The kubelet's words for a Secret, or for a value in it, that a variable is to be read from.
_SECRET_GONE = re.compile(r'secrets? "(?P<name>[^"]+)" not found')
_KEY_GONE = re.compile(r"couldn't find key (?P<key>\S+) in Secret [^/\s]+/(?P<name>\S+)")
# The scheduler's words, and the terms that they are about.
_NOT_NEAR = "didn't match pod affinity rules"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_REFUSED_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def latest(pods: Sequence[Manifest]) -> list[Manifest]:
    """Return the pods of the template rolled out last: what ails those before it is on its way out.

    Source: the label that the Deployment controller puts on the pods of each template.
    """
    # The time is in whole seconds: of two pods of the same one, that which serves was there first.
    newest: Manifest = max(
        (pod for pod in pods if not is_ending(pod)),
        key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), not _is_ready(pod)),
        default={"metadata": {}},
    )
    template = newest["metadata"].get("labels", {}).get(_TEMPLATE_LABEL)
    return [
        pod for pod in pods if pod["metadata"].get("labels", {}).get(_TEMPLATE_LABEL) == template
    ]


def last_failure(pods: Sequence[Manifest]) -> list[str]:
    """Return one sentence on the last pod that failed for good; without it, why another pod starts
    again and again stays untold."""
    failed = [
        pod for pod in pods if pod.get("status", {}).get("phase") == "Failed" and not is_ending(pod)
    ]
    if not failed:
        return []
    pod = max(failed, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    words = [pod["status"].get("reason", ""), pod["status"].get("message", "")]
    return [": ".join([f"earlier, pod {pod['metadata']['name']} failed", *filter(None, words)])]


def pod_finding(
    pod: Manifest, secrets: Sequence[SecretUse], container: str = names.SERVER_CONTAINER
) -> Finding | None:
    """Return what keeps a pod from being ready; None for one that is, or will never be."""
    if is_gone(pod) or _is_ready(pod):
        return None
    name = pod["metadata"]["name"]
    if (words := unschedulable(pod)) is not None:
        reason = names.WAITING_FOR_GPU if waits_for_device(pod) else names.UNSCHEDULABLE
        return Finding(reason, f"pod {name}: {words}")
    containers = pod["status"].get("containerStatuses", [])
    server = next((item for item in containers if item["name"] == container), None)
    if server is None:
        return Finding(names.STARTING_PODS, f"pod {name} is being created")
    return _container_finding(name, server, secrets)


def affinity_note(finding: Finding, template: Manifest) -> list[str]:
    """Return one sentence on what may contradict the podAffinity of the volume.

    Another of the user's does not where the pods themselves are what the user wants near, so none
    is refused.

    Source: k8s.io/kubernetes/pkg/scheduler/framework/plugins/interpodaffinity,
    `podMatchesAllAffinityTerms`: a pod counts for one term only if it matches all of them.
    """
    terms = template["spec"].get("affinity", {}).get("podAffinity", {}).get(_REQUIRED, [])
    of_volume = [
        term
        for term in terms
        if names.VOLUME_LABEL in term.get("labelSelector", {}).get("matchLabels", {})
    ]
    if _NOT_NEAR not in finding.message or not of_volume:
        return []
    if terms == of_volume:
        # On the one node there is no room either: no need to say why it is the one.
        if "Insufficient" in finding.message:
            return []
        return [
            "pods that use the volume, which one node alone may use, are on a node where this one "
            "may not be: end them, by spec.replicas 0 (and no spec.autoscaling) for a while, or by "
            "deleting those of a node that is gone with kubectl delete pod --force"
        ]
    return [
        f"spec.podTemplate.affinity.podAffinity has {_REQUIRED}, and so has the volume, which one "
        "node alone may use; a pod has to be there that meets both: make yours "
        "preferredDuringSchedulingIgnoredDuringExecution, or use a volume that is ReadWriteMany"
    ]


def _is_ready(pod: Manifest) -> bool:
    return conditions(pod).get("Ready", {}).get("status") == "True"


def _container_finding(pod: str, container: Manifest, secrets: Sequence[SecretUse]) -> Finding:
    state = container.get("state", {})
    waiting = state.get("waiting", {})
    reason = waiting.get("reason", "")
    if reason in _PULL_REASONS:
        return Finding(
            names.IMAGE_PULL_FAILED, f"pod {pod}: {reason}: {waiting.get('message', '')}"
        )
    if missing := _missing_secret(waiting.get("message", ""), secrets):
        return Finding(names.SECRET_NOT_FOUND, f"pod {pod} waits: {missing}")
    if reason in _REFUSED_REASONS:
        return Finding(
            names.CONTAINER_REFUSED, f"pod {pod}: {reason}: {waiting.get('message', '')}"
        )
    # A restarted container is told by why it ended, until it is ready: it most likely ends again.
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended:
        if ended.get("reason") == "OOMKilled":
            return Finding(
                names.OUT_OF_MEMORY,
                f"pod {pod} was killed for its memory: raise spec.resources.limits.memory",
            )
        log = " ".join(ended.get("message", "")[-_MAX_LOG:].split())
        restarts = container.get("restartCount", 0)
        return Finding(
            names.CRASH_LOOPING,
            f"pod {pod} ended with exit code {ended.get('exitCode')}, {restarts} restarts: {log}",
        )
    if "running" in state:
        return Finding(names.LOADING_MODEL, f"pod {pod} is loading the model")
    return Finding(names.STARTING_PODS, f"pod {pod} is being created")


def _missing_secret(message: str, secrets: Sequence[SecretUse]) -> str:
    """Return a sentence on what `message` says is missing; "" if that is no Secret."""
    if gone := _KEY_GONE.search(message):
        fault = f"Secret {gone['name']} has no key {gone['key']}"
    elif gone := _SECRET_GONE.search(message):
        fault = f"there is no Secret {gone['name']}"
    else:
        return ""
    readers = [
        f"{use.field} reads its key {use.key}" for use in secrets if use.name == gone["name"]
    ]
    told = f" ({', '.join(readers)})" if readers else ""
    return f"{fault}{told}: create it, and the pod starts by itself"
