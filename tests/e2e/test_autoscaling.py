"""The number of pods follows the work, by real KEDA; a stand-in for vLLM makes work take time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from e2e.scaled import AT_WORK, STABILIZATION_SECONDS, Scaled, assert_all_answered, scaled
from lab import keda
from lab.load import Load, load_on
from lab.observe import eventually, watched
from lab.target import Target

# At 60 pairs a second these are 2.7 s of work: a pod for each of them, if there were so many.
PAIRS_PER_SECOND = 60
DOCUMENTS = 10
CLIENTS = 16
SCALING = {"maxReplicas": 2, "scaleDownStabilizationSeconds": STABILIZATION_SECONDS}
SLOW = {"maxReplicas": 2}
PROMETHEUS = SCALING | {"prometheus": {"serverAddress": keda.PROMETHEUS_URL}}
KEDA_DEPLOYMENTS = ("keda", "keda-operator", "keda-metrics-apiserver")
PROMETHEUS_DEPLOYMENTS = ("monitoring", "prometheus")


@pytest.fixture
def service(kube: Target, namespace: str, standin: str, with_keda: None) -> Iterator[Scaled]:
    """One of the stand-in, to be started; gone after."""
    speed = {"name": "STANDIN_PAIRS_PER_SECOND", "value": str(PAIRS_PER_SECOND)}
    spec = {
        "image": standin,
        "engine": {"maxModelLen": 512},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "drainSeconds": 20,
        "podTemplate": {"env": [speed]},
    }
    with scaled(kube, namespace, "scaled", spec) as found:
        yield found


@pytest.fixture
def load(kube: Target, service: Scaled) -> Iterator[Load]:
    """Clients that ask it, none at first."""
    with load_on(kube, service.name, service.url, DOCUMENTS) as found:
        yield found


@pytest.mark.parametrize("scaling", [SCALING, PROMETHEUS], ids=["keda", "prometheus"])
def test_pods_follow_the_load_up_and_down_without_a_failed_request(
    service: Scaled, load: Load, report: Callable[[str], None], scaling: dict[str, Any]
) -> None:
    service.start(scaling)

    report(scale_up(service, load))
    service.wait_told("AtMaximum")
    load.clients(2, pause_seconds=1)
    began = time.monotonic()
    eventually(lambda: service.replicas() == 1, "one pod is enough again", 150)
    eventually(lambda: len(service.pods()) == 1, "the other is gone")
    report(f"little load -> one pod {time.monotonic() - began:.1f} s")

    assert_all_answered(load, report)


@pytest.mark.parametrize("scaling", [SCALING, PROMETHEUS], ids=["keda", "prometheus"])
def test_service_goes_on_without_who_scales_it(
    service: Scaled, load: Load, report: Callable[[str], None], scaling: dict[str, Any]
) -> None:
    service.start(scaling)
    report(scale_up(service, load))
    service.wait_told("AtMaximum")

    gone = KEDA_DEPLOYMENTS if scaling is SCALING else PROMETHEUS_DEPLOYMENTS
    with away(service.kube, gone):
        began = time.monotonic()
        service.wait_told("MetricMissing")
        report(f"{gone[0]} gone -> told {time.monotonic() - began:.1f} s: {service.told()[1]}")
        before = load.answers()
        service.hold(2)
        assert load.answers() > before
        assert service.told()[0] == "MetricMissing"
    began = time.monotonic()
    service.wait_told("AtMaximum")
    report(f"{gone[0]} is back -> told {time.monotonic() - began:.1f} s")

    assert_all_answered(load, report)


def test_change_of_the_autoscaler_keeps_the_pods_and_never_has_two(
    service: Scaled, report: Callable[[str], None]
) -> None:
    # Or the autoscaler, once it looks, would rightly want one.
    two = SLOW | {"minReplicas": 2}
    service.start(two)
    eventually(lambda: service.replicas() == 2, "two pods are wanted")

    with watched(
        service.kube, "horizontalpodautoscalers", service.where, service.selector
    ) as watch:
        # No adapter serves what it asks for here, so it leaves the pods as they are.
        for scaling, expected in (
            (two | {"type": "hpa"}, {service.name}),
            (None, set()),
            (two, {f"keda-hpa-{service.name}"}),
            (two | {"type": "hpa"}, {service.name}),
            (two, {f"keda-hpa-{service.name}"}),
        ):
            began = time.monotonic()
            service.ask(scaling)
            eventually(lambda: watch()[-1] == expected, f"the autoscalers are {expected}")  # noqa: B023
            report(f"-> {expected or 'fixed'} {time.monotonic() - began:.1f} s")
            assert service.replicas() == 2
        service.wait_told(*AT_WORK)
        seen = watch()

    assert service.replicas() == 2
    assert max(len(names) for names in seen) == 1, seen


def test_pod_deleted_under_load_fails_no_request(
    service: Scaled, load: Load, report: Callable[[str], None]
) -> None:
    service.start(SCALING | {"minReplicas": 2})
    eventually(lambda: service.replicas() == 2 and service.is_ready(), "two pods are ready")
    (old, other) = service.pods()
    load.clients(CLIENTS)
    eventually(lambda: service.answered(old) and service.answered(other), "both answer")

    service.kube.kubectl("delete", "pod", old, service.where, "--wait=false")
    eventually(lambda: old not in service.pods(), "it is gone")
    service.wait_new(old, other)

    assert_all_answered(load, report)


def scale_up(service: Scaled, load: Load) -> str:
    """Put load on its one pod until a second one serves; return how long that took."""
    (old,) = service.pods()
    began = time.monotonic()
    load.clients(CLIENTS)
    eventually(lambda: service.replicas() == 2, "a second pod is wanted")
    wanted = time.monotonic() - began
    service.wait_new(old)
    answered = time.monotonic() - began
    return f"from load to a pod wanted {wanted:.1f} s, to its first answer {answered:.1f} s"


@contextmanager
def away(kube: Target, deployments: Sequence[str]) -> Iterator[None]:
    """Take these Deployments' pods away for a while; the first is their namespace."""
    namespace, *names = deployments
    where = f"--namespace={namespace}"
    kube.kubectl("scale", "deployment", *names, where, "--replicas=0")
    try:
        yield
    finally:
        kube.kubectl("scale", "deployment", *names, where, "--replicas=1")
        for name in names:
            kube.kubectl("rollout", "status", f"deployment/{name}", where, "--timeout=120s")
