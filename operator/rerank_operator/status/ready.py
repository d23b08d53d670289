"""Ready, which sums up: its reason is the first thing that is wrong."""

from collections.abc import Sequence

from rerank_operator import names
from rerank_operator.api import Manifest, RerankerService, secrets_used
from rerank_operator.status.conditions import Finding, refusal_reason
from rerank_operator.status.pods import last_failure, latest, pod_finding

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


def ready(
    reranker: RerankerService,
    deployment: Manifest | None,
    pods: Sequence[Manifest],
    problem: Finding | None,
    cached: tuple[bool, Finding] | None = None,
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
    newest = latest(pods)
    secrets = list(secrets_used(reranker.spec))
    findings = [_deployment_finding(deployment), *(pod_finding(pod, secrets) for pod in newest)]
    known = [finding for finding in findings if finding is not None]
    if any(finding.reason in (names.QUOTA_EXCEEDED, names.PODS_REFUSED) for finding in known):
        return False, known[0]
    rolling_out = Finding(
        names.ROLLING_OUT,
        f"{min(updated, available)} of {wanted} pods are up to date and available",
    )
    worst = min(known or [rolling_out], key=lambda finding: _WORST_FIRST.index(finding.reason))
    return False, Finding(worst.reason, "; ".join([worst.message, *last_failure(newest)]))


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
