"""AutoscalerReady: whether the number of pods follows the work, by what the autoscaler says."""

from collections.abc import Sequence

from rerank_operator import names
from rerank_operator.api import Autoscaling, Manifest
from rerank_operator.observed import unschedulable, waits_for_device
from rerank_operator.status.conditions import Finding


def autoscaler_ready(
    scaling: Autoscaling,
    autoscaler: Manifest | None,
    pods: Sequence[Manifest],
    rolling: bool,
    problem: Finding | None,
) -> tuple[bool, Finding]:
    """Return whether it is, and why.

    `autoscaler` is the HorizontalPodAutoscaler, which KEDA makes as well; `problem` what kept one
    from being asked for. While pods are `rolling`, one that waits for a GPU is no wish for more.

    Source: k8s.io/kubernetes/pkg/controller/podautoscaler, `setCondition`.
    """
    if problem is not None:
        return False, problem
    conditions = {
        condition["type"]: condition
        for condition in (autoscaler or {}).get("status", {}).get("conditions", [])
    }
    able, active, limited = (
        conditions.get(name, {}) for name in ("AbleToScale", "ScalingActive", "ScalingLimited")
    )
    if not conditions:
        return False, Finding(names.AUTOSCALER_STARTING, _starting(scaling, autoscaler))
    if able.get("status") == "False":
        return False, Finding(names.AUTOSCALER_FAILED, able.get("message", ""))
    if active.get("reason") == "ScalingDisabled" and scaling.type == "hpa":
        return False, Finding(
            names.AUTOSCALER_FAILED,
            "spec.replicas is 0, from where a HorizontalPodAutoscaler does not scale: set it to 1",
        )
    # It says so of none as well, which KEDA ends when something outside the pods tells of work.
    if active.get("status") == "False" and active.get("reason") != "ScalingDisabled":
        message = f"the number of pods stays as it is: {active.get('message', '')}"
        return False, Finding(names.METRIC_MISSING, message)
    short = next((pod for pod in pods if waits_for_device(pod)), None)
    if short is not None and not rolling:
        return False, Finding(
            names.SHORT_OF_GPUS,
            f"more pods are asked for than there are GPUs: pod {short['metadata']['name']}: "
            f"{unschedulable(short)}",
        )
    if limited.get("status") == "True" and limited.get("reason") == "TooManyReplicas":
        return True, Finding(
            names.AT_MAXIMUM,
            f"all {scaling.max_replicas} pods are asked for, and the work would take more: raise "
            "autoscaling.maxReplicas if it stays so",
        )
    return True, Finding(names.SCALING, f"{_aim(scaling)}, by {_who(scaling)}")


def _starting(scaling: Autoscaling, autoscaler: Manifest | None) -> str:
    if autoscaler is None and scaling.type == "keda":
        return (
            "KEDA has not made its HorizontalPodAutoscaler yet; if that stays so, look at the "
            "ScaledObject's conditions and at KEDA's operator"
        )
    return "the HorizontalPodAutoscaler has not looked at the pods yet"


def _aim(scaling: Autoscaling) -> str:
    if scaling.target_queue_depth == "auto":
        target = f"{scaling.target_wait_seconds:g} s of work"
    else:
        target = f"{scaling.target_queue_depth} pairs"
    return f"{scaling.min_replicas} to {scaling.max_replicas} pods, for {target} per pod"


def _who(scaling: Autoscaling) -> str:
    if scaling.type == "hpa":
        return "a HorizontalPodAutoscaler"
    return "KEDA, which asks Prometheus" if scaling.prometheus else "KEDA, which asks the pods"
