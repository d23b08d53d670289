"""Ready, which sums up: its reason is the first thing that is wrong."""

from collections.abc import Iterator, Sequence

from rerank_operator import names
from rerank_operator.api import Manifest, RerankerService, secrets_used
from rerank_operator.observed import (
    conditions,
    down_in_place,
    is_ending,
    is_rolled_out,
    is_rolling,
    pods_refused,
)
from rerank_operator.status.conditions import Finding, refusal_reason
from rerank_operator.status.pods import affinity_note, last_failure, latest, pod_finding

# When several pods have different faults, the first of these is told.
_WORST_FIRST = [
    names.QUOTA_EXCEEDED,
    names.PODS_REFUSED,
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
    wanted = reranker.spec.replicas
    if is_rolled_out(deployment, wanted):
        if wanted == 0:
            return True, Finding(names.SCALED_TO_ZERO, "no pods are asked for")
        return True, Finding(names.ALL_PODS_READY, f"all {wanted} pods are ready")
    newest = latest(pods)
    secrets = list(secrets_used(reranker.spec))
    findings = [_deployment_finding(deployment), *(pod_finding(pod, secrets) for pod in newest)]
    known = [finding for finding in findings if finding is not None]
    counts = deployment.get("status", {})
    current = min(counts.get("updatedReplicas", 0), counts.get("availableReplicas", 0))
    rolling_out = Finding(
        names.ROLLING_OUT, f"{current} of {wanted} pods are up to date and available"
    )
    worst = min(known or [rolling_out], key=lambda finding: _WORST_FIRST.index(finding.reason))
    notes = [*_notes(reranker, deployment, pods, worst), *last_failure(newest)]
    return False, Finding(worst.reason, "; ".join([worst.message, *notes]))


def _notes(
    reranker: RerankerService, deployment: Manifest, pods: Sequence[Manifest], worst: Finding
) -> Iterator[str]:
    """Yield sentences on how the rollout goes, beside what is wrong with its pods."""
    replacing = is_rolling(deployment) or any(map(is_ending, pods))
    if replacing and reranker.spec.rollout == "Auto" and down_in_place(deployment):
        yield "there was no room beside the old pods, so the new ones take their place"
    no_room = worst.reason in (names.WAITING_FOR_GPU, names.QUOTA_EXCEEDED)
    if replacing and reranker.spec.rollout == "Surge" and no_room:
        yield (
            "spec.rollout is Surge, so the old pods stay until there is room: free some, or set it "
            "to Auto"
        )
    yield from affinity_note(worst, deployment["spec"]["template"])
    stuck = _stuck(deployment)
    if stuck and stuck != worst:
        yield stuck.message


def _deployment_finding(deployment: Manifest) -> Finding | None:
    if refusal := pods_refused(deployment):
        return Finding(refusal_reason(refusal, names.PODS_REFUSED), refusal)
    return _stuck(deployment)


def _stuck(deployment: Manifest) -> Finding | None:
    progress = conditions(deployment).get("Progressing", {})
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return Finding(names.ROLLOUT_STUCK, progress.get("message", ""))
    return None
