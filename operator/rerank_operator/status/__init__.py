"""Status as a pure function of what was asked for and what was seen."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rerank_operator import names
from rerank_operator.api import Manifest, ModelStatus, RerankerService, RerankerServiceStatus
from rerank_operator.names import Kind
from rerank_operator.observed import is_rolling
from rerank_operator.status.autoscaler import autoscaler_ready
from rerank_operator.status.conditions import Finding, merge, refusal_reason
from rerank_operator.status.ready import ready

__all__ = ["Finding", "build_status", "invalid_status", "merge", "refusal_reason"]


def build_status(
    reranker: RerankerService,
    deployment: Manifest | None,
    service: Manifest | None,
    autoscaler: Manifest | None,
    pods: Sequence[Manifest],
    problems: Mapping[Kind, Finding],
    current: RerankerServiceStatus,
    now: datetime,
    cached: tuple[bool, Finding] | None = None,
    model: ModelStatus | None = None,
) -> RerankerServiceStatus:
    """Return the complete status.

    `deployment` and `service` are None unless they are this reranker's own; `autoscaler` is the
    HorizontalPodAutoscaler, its own or KEDA's for it.
    `problems` is what kept children from being applied, in the order in which it was met. The first
    comes before all else in Ready, those of SIDE_KINDS apart.
    `current` is the status as it is, from which times of unchanged conditions are kept.
    `cached` is the verdict on the download of `model`, where there is one.
    """
    instance = names.instance(reranker.name)
    counts = (deployment or {}).get("status", {})
    problem = next((problems[kind] for kind in problems if kind not in names.SIDE_KINDS), None)
    findings = {
        names.READY: ready(reranker, deployment, pods, problem, cached),
        names.AVAILABLE: _available(reranker, counts),
    }
    if cached is not None:
        findings[names.MODEL_CACHED] = cached
    if reranker.spec.monitoring.pod_monitor:
        findings[names.MONITORED] = _monitored(problems.get(names.POD_MONITORS))
    if reranker.spec.autoscaling is not None:
        scaling_problem = problems.get(names.SCALED_OBJECTS) or problems.get(names.AUTOSCALERS)
        findings[names.AUTOSCALER_READY] = autoscaler_ready(
            reranker.spec.autoscaling,
            autoscaler,
            pods,
            deployment is not None and is_rolling(deployment),
            scaling_problem,
        )
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
