from typing import Any

import pytest

from builders import make_pod, make_reranker
from rerank_operator import names
from rerank_operator.api import Manifest
from rerank_operator.status.autoscaler import autoscaler_ready
from rerank_operator.status.conditions import Finding

FINE = {
    "AbleToScale": ("True", "ReadyForNewScale", ""),
    "ScalingActive": ("True", "ValidMetricFound", ""),
    "ScalingLimited": ("False", "DesiredWithinRange", ""),
}


def hpa(**conditions: tuple[str, str, str]) -> Manifest:
    """Return a HorizontalPodAutoscaler as its controller writes it, reduced to what is read."""
    return {
        "status": {
            "conditions": [
                {"type": type_, "status": status, "reason": reason, "message": message}
                for type_, (status, reason, message) in (FINE | conditions).items()
            ]
        }
    }


def found(
    autoscaler: Manifest | None,
    *pods: Manifest,
    problem: Finding | None = None,
    rolling: bool = False,
    **scaling: Any,
) -> tuple[bool, Finding]:
    spec = make_reranker(autoscaling={"maxReplicas": 4} | scaling).spec.autoscaling
    assert spec is not None
    return autoscaler_ready(spec, autoscaler, pods, rolling, problem)


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({}, "1 to 4 pods, for 1 s of work per pod, by KEDA, which asks the pods"),
        (
            {"targetQueueDepth": 64, "prometheus": {"serverAddress": "http://p"}},
            "1 to 4 pods, for 64 pairs per pod, by KEDA, which asks Prometheus",
        ),
        (
            {"type": "hpa", "targetWaitSeconds": 0.5},
            "1 to 4 pods, for 0.5 s of work per pod, by a HorizontalPodAutoscaler",
        ),
    ],
)
def test_autoscaler_that_works_tells_what_it_does(scaling: Manifest, message: str) -> None:
    assert found(hpa(), **scaling) == (True, Finding(names.SCALING, message))


@pytest.mark.parametrize(
    ("conditions", "healthy", "reason", "message"),
    [
        (
            {"ScalingActive": ("False", "FailedGetExternalMetric", "no endpoints")},
            False,
            names.METRIC_MISSING,
            "the number of pods stays as it is: no endpoints",
        ),
        (
            {"ScalingActive": ("False", "ScalingDisabled", "the replica count is zero")},
            True,
            names.SCALING,
            "1 to 4 pods",
        ),
        (
            {"AbleToScale": ("False", "FailedGetScale", "not found")},
            False,
            names.AUTOSCALER_FAILED,
            "not found",
        ),
        (
            {"ScalingLimited": ("True", "TooManyReplicas", "more than the maximum")},
            True,
            names.AT_MAXIMUM,
            "all 4 pods are asked for",
        ),
        (
            {"ScalingLimited": ("True", "TooFewReplicas", "less than the minimum")},
            True,
            names.SCALING,
            "1 to 4 pods",
        ),
    ],
)
def test_conditions_of_the_autoscaler_are_told(
    conditions: dict[str, tuple[str, str, str]], healthy: bool, reason: str, message: str
) -> None:
    ready, finding = found(hpa(**conditions))

    assert (ready, finding.reason) == (healthy, reason)
    assert message in finding.message


def test_no_pods_are_not_scaled_by_a_horizontal_pod_autoscaler() -> None:
    disabled = ("False", "ScalingDisabled", "the replica count is zero")

    ready, finding = found(hpa(ScalingActive=disabled), type="hpa")

    assert (ready, finding.reason) == (False, names.AUTOSCALER_FAILED)
    assert "set it to 1" in finding.message


def test_pods_for_which_there_is_no_gpu_are_told() -> None:
    pending = make_pod(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")

    ready, finding = found(hpa(), make_pod({"running": {}}, ready=True), pending)

    assert (ready, finding.reason) == (False, names.SHORT_OF_GPUS)
    assert "Insufficient nvidia.com/gpu" in finding.message
    # Such a pod is then one that takes another's place.
    assert found(hpa(), pending, rolling=True)[1].reason == names.SCALING


def test_autoscaler_that_is_not_there_yet_is_told() -> None:
    of_keda, own = found(None), found({"status": {}}, type="hpa")

    assert (of_keda[1].reason, own[1].reason) == (names.AUTOSCALER_STARTING,) * 2
    assert "KEDA has not made" in of_keda[1].message
    assert "has not looked at the pods yet" in own[1].message


def test_what_kept_it_from_being_applied_comes_first() -> None:
    problem = Finding(names.KEDA_MISSING, "install KEDA")

    assert found(hpa(), problem=problem) == (False, problem)
