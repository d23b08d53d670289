"""Status as a pure function of what was asked for and what was seen."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rerank_operator import names
from rerank_operator.api import (
    Condition,
    Manifest,
    ModelStatus,
    RerankerService,
    RerankerServiceStatus,
    SecretUse,
    secrets_used,
)
from rerank_operator.names import Kind

# A condition's message is for reading: long logs and server answers are cut.
_MAX_MESSAGE = 1000
_MAX_LOG = 400

_TEMPLATE_LABEL = "pod-template-hash"
_PULL_REASONS = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
# The kubelet's words for a Secret, or for a value in it, that a variable is to be read from.
_SECRET_GONE = re.compile(r'secrets? "(?P<name>[^"]+)" not found')
_KEY_GONE = re.compile(r"couldn't find key (?P<key>\S+) in Secret [^/\s]+/(?P<name>\S+)")
_REFUSED_REASONS = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}

# Finished for good, evicted for instance. The ReplicaSet has put another pod in its place.
_FINISHED_PHASES = {"Failed", "Succeeded"}

# When several pods have different faults, the first of these is told.
_WORST_FIRST = [
    names.IMAGE_PULL_FAILED,
    names.SECRET_NOT_FOUND,
    names.CONTAINER_REFUSED,
    names.OUT_OF_MEMORY,
    names.CRASH_LOOPING,
    names.WAITING_FOR_GPU,
    names.UNSCHEDULABLE,
    names.ROLLOUT_STUCK,
    names.LOADING_MODEL,
    names.STARTING_PODS,
    names.ROLLING_OUT,
]


class Finding(NamedTuple):
    """Why something is as it is: a reason for machines and a sentence for people."""

    reason: str
    message: str


def build_status(
    reranker: RerankerService,
    deployment: Manifest | None,
    service: Manifest | None,
    pods: Sequence[Manifest],
    problems: Mapping[Kind, Finding],
    current: RerankerServiceStatus,
    now: datetime,
    cached: tuple[bool, Finding] | None = None,
    model: ModelStatus | None = None,
) -> RerankerServiceStatus:
    """Return the complete status.

    `deployment` and `service` are None unless they are this reranker's own.
    `problems` is what kept children from being applied, in the order in which it was met. The first
    comes before all else in Ready; only without its PodMonitor a service is as good as with it.
    `current` is the status as it is, from which times of unchanged conditions are kept.
    `cached` is the verdict on the download of `model`, where there is one.
    """
    instance = names.instance(reranker.name)
    counts = (deployment or {}).get("status", {})
    problem = next((problems[kind] for kind in problems if kind != names.POD_MONITORS), None)
    findings = {
        names.READY: _ready(reranker, deployment, pods, problem, cached),
        names.AVAILABLE: _available(reranker, counts),
    }
    if cached is not None:
        findings[names.MODEL_CACHED] = cached
    if reranker.spec.monitoring.pod_monitor:
        findings[names.MONITORED] = _monitored(problems.get(names.POD_MONITORS))
    kept = [
        condition
        for condition in current.conditions
        if condition.type in findings or condition.type not in names.CONDITIONS
    ]
    return RerankerServiceStatus(
        observed_generation=reranker.generation,
        replicas=counts.get("replicas", 0),
        ready_replicas=counts.get("readyReplicas", 0),
        selector=",".join(
            f"{name}={value}" for name, value in sorted(names.selector(instance).items())
        ),
        # Behind that name may be a Service of somebody else's.
        url=f"http://{instance}.{reranker.namespace}.svc" if service is not None else "",
        model=model,
        conditions=merge(kept, findings, reranker.generation, now),
    )


def invalid_status(
    generation: int, fault: str, current: RerankerServiceStatus, now: datetime
) -> RerankerServiceStatus:
    """Return `current` with Ready false: the stored spec cannot be read, nothing was changed."""
    finding = (False, Finding(names.INVALID_SPEC, fault))
    return current.model_copy(
        update={
            "observed_generation": generation,
            "conditions": merge(current.conditions, {names.READY: finding}, generation, now),
        }
    )


def merge(
    current: Sequence[Condition],
    findings: Mapping[str, tuple[bool, Finding]],
    generation: int,
    now: datetime,
) -> list[Condition]:
    """Return `current` with `findings` in it, sorted by type.

    `last_transition_time` moves only when `status` does. Alerts measure "not ready for ten
    minutes" from it, so a changed message must not restart the clock.
    """
    by_type = {condition.type: condition for condition in current}
    for name, (healthy, finding) in findings.items():
        status = "True" if healthy else "False"
        old = by_type.get(name)
        unchanged = old is not None and old.status == status
        by_type[name] = Condition(
            type=name,
            status="True" if healthy else "False",
            reason=finding.reason,
            message=finding.message[:_MAX_MESSAGE],
            observed_generation=generation,
            last_transition_time=old.last_transition_time
            if old is not None and unchanged
            else now.replace(microsecond=0),
        )
    return [by_type[name] for name in sorted(by_type)]


def _available(reranker: RerankerService, counts: Mapping[str, Any]) -> tuple[bool, Finding]:
    available = counts.get("availableReplicas", 0)
    if reranker.spec.replicas == 0:
        return True, Finding(names.SCALED_TO_ZERO, "no pods are asked for")
    if available == 0:
        return False, Finding(names.NO_PODS_AVAILABLE, "no pod answers requests")
    return True, Finding(names.PODS_AVAILABLE, f"{available} pods answer requests")


def _monitored(problem: Finding | None) -> tuple[bool, Finding]:
    if problem is not None:
        return False, problem
    return True, Finding(names.POD_MONITOR_APPLIED, "the PodMonitor is there")


def _ready(
    reranker: RerankerService,
    deployment: Manifest | None,
    pods: Sequence[Manifest],
    problem: Finding | None,
    cached: tuple[bool, Finding] | None,
) -> tuple[bool, Finding]:
    if reranker.spec.paused:
        available = (deployment or {}).get("status", {}).get("availableReplicas", 0)
        return False, Finding(
            names.PAUSED,
            "spec.paused is true: what is asked for is not carried out until it is false; "
            f"{available} pods answer requests",
        )
    if problem is not None:
        return False, problem
    if cached is not None and not cached[0]:
        return cached
    if deployment is None:
        return False, Finding(names.STARTING_PODS, "the Deployment is not there yet")
    counts = deployment.get("status", {})
    wanted = reranker.spec.replicas
    seen = counts.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    updated = counts.get("updatedReplicas", 0)
    available = counts.get("availableReplicas", 0)
    # The order of `kubectl rollout status`: pods of the old template count as available too.
    if seen and updated == counts.get("replicas", 0) == wanted and available >= wanted:
        if wanted == 0:
            return True, Finding(names.SCALED_TO_ZERO, "no pods are asked for")
        return True, Finding(names.ALL_PODS_READY, f"all {wanted} pods are ready")
    latest = _latest(pods)
    secrets = list(secrets_used(reranker.spec))
    findings = [_deployment_finding(deployment), *(pod_finding(pod, secrets) for pod in latest)]
    known = [finding for finding in findings if finding is not None]
    if any(finding.reason in (names.QUOTA_EXCEEDED, names.PODS_REFUSED) for finding in known):
        return False, known[0]
    rolling_out = Finding(
        names.ROLLING_OUT,
        f"{min(updated, available)} of {wanted} pods are up to date and available",
    )
    worst = min(known or [rolling_out], key=lambda finding: _WORST_FIRST.index(finding.reason))
    return False, Finding(worst.reason, "; ".join([worst.message, *_last_failure(latest)]))


def _deployment_finding(deployment: Manifest) -> Finding | None:
    conditions = {
        condition["type"]: condition
        for condition in deployment.get("status", {}).get("conditions", [])
    }
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") == "True":
        message = failure.get("message", "")
        return Finding(refusal_reason(message, names.PODS_REFUSED), message)
    progress = conditions.get("Progressing", {})
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return Finding(names.ROLLOUT_STUCK, progress.get("message", ""))
    return None


def refusal_reason(message: str, otherwise: str) -> str:
    """Tell a quota from other refusals; the API server has no reason of its own for it."""
    return names.QUOTA_EXCEEDED if "exceeded quota" in message else otherwise


def _latest(pods: Sequence[Manifest]) -> list[Manifest]:
    """Return the pods of the template rolled out last: what ails those before it is on its way out.

    Source: the label that the Deployment controller puts on the pods of each template.
    """
    staying = [pod["metadata"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    newest: Manifest = max(
        staying, key=lambda metadata: metadata.get("creationTimestamp", ""), default={}
    )
    template = newest.get("labels", {}).get(_TEMPLATE_LABEL)
    return [
        pod for pod in pods if pod["metadata"].get("labels", {}).get(_TEMPLATE_LABEL) == template
    ]


def _last_failure(pods: Sequence[Manifest]) -> list[str]:
    """Return one sentence on the last pod that failed for good; without it, why another pod starts
    again and again stays untold."""
    failed = [
        pod
        for pod in pods
        if pod.get("status", {}).get("phase") == "Failed"
        and "deletionTimestamp" not in pod["metadata"]
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
    status = pod.get("status", {})
    if "deletionTimestamp" in pod["metadata"] or status.get("phase") in _FINISHED_PHASES:
        return None
    conditions = {condition["type"]: condition for condition in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return None
    name = pod["metadata"]["name"]
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        message = scheduled.get("message", "")
        # The scheduler's words, "Insufficient nvidia.com/gpu"; CPU and memory have no slash.
        short_of_device = any(
            "/" in word.split(",")[0] for word in message.split("Insufficient ")[1:]
        )
        reason = names.WAITING_FOR_GPU if short_of_device else names.UNSCHEDULABLE
        return Finding(reason, f"pod {name}: {message}")
    containers = status.get("containerStatuses", [])
    server = next((item for item in containers if item["name"] == container), None)
    if server is None:
        return Finding(names.STARTING_PODS, f"pod {name} is being created")
    return _container_finding(name, server, secrets)


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
                names.OUT_OF_MEMORY, f"pod {pod} was killed: its memory limit is too low"
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
