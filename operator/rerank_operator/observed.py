"""What observed Deployments and pods say, for decisions about them and for the status."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field

from rerank_operator.api import Manifest

# The API server has no reason of its own for a quota.
OVER_QUOTA = "exceeded quota"

# The scheduler's words. Not enough of a resource:
_INSUFFICIENT = re.compile(r"Insufficient ([^\s,]+)")
# Then what came of preemption, node by node: none of its pods may be preempted; to preempt those
# that may is not enough, in the words of before; there is no use in it, since the node is
# cordoned, tainted, not selected, or has fewer of the device than the pod asks for.
_PREEMPTION = "preemption:"
_TAKEN = "No preemption victims found"
_NO_USE = "Preemption is not helpful"

# Finished for good, evicted for instance. The ReplicaSet has put another pod in its place.
_FINISHED_PHASES = {"Failed", "Succeeded"}


class Progress(BaseModel):
    """How far a download is."""

    done_bytes: Annotated[int, Field(ge=0, lt=2**63)]
    total_bytes: Annotated[int, Field(gt=0, lt=2**63)]


class Observed(NamedTuple):
    """What there is of the Deployment of one RerankerService, and of its pods.

    `short`: a rollout lacks room, for long enough to believe that waiting gets it none.
    """

    deployment: Manifest | None = None
    pods: Sequence[Manifest] = ()
    short: bool = False


def is_rolled_out(deployment: Manifest, wanted: int) -> bool:
    """Tell whether `wanted` pods serve, and all are of the latest template.

    In the order of `kubectl rollout status`: pods of the old template count as available too.
    """
    counts = deployment.get("status", {})
    updated, total = counts.get("updatedReplicas", 0), counts.get("replicas", 0)
    available: int = counts.get("availableReplicas", 0)
    return _is_seen(deployment) and updated == total == wanted and available >= wanted


def is_rolling(deployment: Manifest) -> bool:
    """Tell whether there are pods of an earlier template, or may be."""
    counts = deployment.get("status", {})
    older: bool = counts.get("replicas", 0) > counts.get("updatedReplicas", 0)
    return older or not _is_seen(deployment)


def lacks_room(deployment: Manifest | None, pods: Sequence[Manifest]) -> bool:
    """Tell whether a rollout is held up because no device is free, or none is left of a quota.

    Not while a pod is on its way out, ours or one that is preempted for ours: it holds what it has
    until it has ended.
    """
    return (
        deployment is not None
        and _is_seen(deployment)
        and is_rolling(deployment)
        and not any(is_ending(pod) for pod in pods)
        and (
            OVER_QUOTA in pods_refused(deployment)
            or any(
                _waits_for_room(pod) and "nominatedNodeName" not in pod["status"] for pod in pods
            )
        )
    )


def down_in_place(deployment: Manifest) -> int:
    """Return how many pods the strategy lets be down in place; 0 for any other strategy."""
    numbers = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
    down = numbers.get("maxUnavailable")
    # By hand it may have become a percentage.
    return down if isinstance(down, int) and numbers.get("maxSurge") == 0 else 0


def pods_refused(deployment: Manifest) -> str:
    """Return the API server's words on why it lets no pod be made; "" when it does."""
    failure = conditions(deployment).get("ReplicaFailure", {})
    return str(failure.get("message", "")) if failure.get("status") == "True" else ""


def is_ending(pod: Manifest) -> bool:
    """Tell whether a pod is marked for deletion."""
    return "deletionTimestamp" in pod["metadata"]


def is_gone(pod: Manifest) -> bool:
    """Tell whether a pod will never serve again."""
    return is_ending(pod) or pod.get("status", {}).get("phase") in _FINISHED_PHASES


def is_placed(pod: Manifest) -> bool:
    """Tell whether a pod serves, or will when it has loaded: it has a node, or gets one."""
    return not is_gone(pod) and unschedulable(pod) is None


def waits_for_device(pod: Manifest) -> bool:
    """Tell whether no node has enough of a device for a pod that is to stay."""
    lacking = _INSUFFICIENT.findall(unschedulable(pod) or "")
    # As in "Insufficient nvidia.com/gpu"; CPU and memory have no slash.
    return not is_gone(pod) and any("/" in resource for resource in lacking)


def _waits_for_room(pod: Manifest) -> bool:
    """Tell whether a pod waits for a device that others, which ended, might leave to it.

    CPU and memory are no such thing: how much of them an old pod holds is not known here, and
    nodes with more of them come in a minute.

    Source: k8s.io/kubernetes/pkg/scheduler/framework/preemption, `Evaluator.Preempt`, and
    plugins/defaultpreemption, `SelectVictimsOnNode`.
    """
    told = (unschedulable(pod) or "").partition(_PREEMPTION)[2]
    of_use = _NO_USE not in told or _TAKEN in told or _INSUFFICIENT.search(told) is not None
    return of_use and waits_for_device(pod)


def unschedulable(pod: Manifest) -> str | None:
    """Return the scheduler's words on why no node takes a pod; None when one does."""
    scheduled = conditions(pod).get("PodScheduled", {})
    return str(scheduled.get("message", "")) if scheduled.get("status") == "False" else None


def conditions(manifest: Manifest) -> dict[str, Mapping[str, Any]]:
    """Return the conditions of an object by their types."""
    return {found["type"]: found for found in manifest.get("status", {}).get("conditions", [])}


def _is_seen(deployment: Manifest) -> bool:
    """Tell whether the counts are about what the Deployment asks for by now."""
    generation: int = deployment["metadata"].get("generation", 0)
    return bool(deployment.get("status", {}).get("observedGeneration", 0) >= generation)
