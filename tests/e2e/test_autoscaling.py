"""The number of pods follows the work, by real KEDA; a stand-in for vLLM makes work take time."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from lab import keda
from lab.load import Load, load_on
from lab.observe import children, eventually, ready, told, watched
from lab.report import say
from lab.target import Target

NAME = "scaled"
# At 60 pairs a second these are 2.7 s of work: a pod for each of them, if there were so many.
PAIRS_PER_SECOND = 60
DOCUMENTS = 10
CLIENTS = 16
# Each look of the HorizontalPodAutoscaler, of which the lab has one every 5 s, and a pod's start.
SECONDS = 60
# Long enough for pods to go, if no data were taken for no work: see STABILIZATION_SECONDS.
HOLD_SECONDS = 20
STABILIZATION_SECONDS = 10
SCALING = {"maxReplicas": 2, "scaleDownStabilizationSeconds": STABILIZATION_SECONDS}
SLOW = {"maxReplicas": 2}
PROMETHEUS = SCALING | {"prometheus": {"serverAddress": keda.PROMETHEUS_URL}}
KEDA_DEPLOYMENTS = ("keda", "keda-operator", "keda-metrics-apiserver")
PROMETHEUS_DEPLOYMENTS = ("monitoring", "prometheus")
AT_WORK = ("Scaling", "AtMaximum")


class Scaled:
    """A RerankerService whose number of pods is others' business."""

    def __init__(self, kube: Target, namespace: str, spec: dict[str, Any]) -> None:
        self.kube = kube
        self.where = f"--namespace={namespace}"
        self.url = f"http://{NAME}.{namespace}.svc/v1/rerank"
        self._namespace = namespace
        self._spec = spec

    def ask(self, autoscaling: dict[str, Any] | None) -> None:
        """Apply it as a user would, without a number of pods."""
        body = {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "RerankerService",
            "metadata": {"name": NAME},
            "spec": {
                "model": {"name": "/models/tiny-reranker"},
                "accelerator": {"resource": "none"},
                **({} if autoscaling is None else {"autoscaling": autoscaling}),
                **self._spec,
            },
        }
        self.kube.kubectl("apply", self.where, "-f", "-", stdin=yaml.safe_dump(body))

    def start(self, autoscaling: dict[str, Any]) -> None:
        """Have it with pods that serve, and an autoscaler that looks at them."""
        self.ask(autoscaling)
        eventually(self.is_ready, "it is Ready", SECONDS)
        self.wait_told(*AT_WORK)

    def is_ready(self) -> bool:
        """Tell whether as many pods serve as are wanted."""
        return ready(self.kube, NAME, self._namespace)

    def replicas(self) -> int:
        """Return the number of pods that is wanted."""
        found = self.kube.get("rerankerservice", NAME, self.where)
        return int(found["spec"]["replicas"])

    def told(self) -> tuple[str, str]:
        """Return reason and message of AutoscalerReady."""
        return told(self.kube, NAME, self._namespace, "AutoscalerReady")

    def wait_told(self, *reasons: str, seconds: float = SECONDS) -> None:
        """Wait until AutoscalerReady has one of these reasons."""
        eventually(lambda: self.told()[0] in reasons, f"AutoscalerReady: {reasons}", seconds)

    def pods(self) -> list[str]:
        """Return the names of its pods."""
        selector = f"--selector=rerank.dev/service={NAME}"
        pods = self.kube.get("pods", selector, self.where)["items"]
        return [pod["metadata"]["name"] for pod in pods]

    def answered(self, pod: str) -> bool:
        """Tell whether a pod has answered a request."""
        path = f"/api/v1/namespaces/{self._namespace}/pods/{pod}:8080/proxy/metrics"
        return 'rerank_requests_total{code="200"}' in self.kube.kubectl("get", "--raw", path)

    def hold(self, replicas: int) -> None:
        """See that so many pods are wanted, for a while."""
        until = time.monotonic() + HOLD_SECONDS
        while time.monotonic() < until:
            assert self.replicas() == replicas
            time.sleep(0.5)

    def scale_up(self, load: Load) -> str:
        """Put load on its one pod until a second one serves; return how long that took."""
        (old,) = self.pods()
        began = time.monotonic()
        load.clients(CLIENTS)
        eventually(lambda: self.replicas() == 2, "a second pod is wanted")
        wanted = time.monotonic() - began
        self.wait_new(old)
        answered = time.monotonic() - began
        return f"from load to a pod wanted {wanted:.1f} s, to its first answer {answered:.1f} s"

    def wait_new(self, *old: str) -> None:
        """Wait until a pod that is none of these has answered a request."""
        eventually(
            lambda: any(self.answered(pod) for pod in self.pods() if pod not in old),
            "a new pod answers",
            SECONDS,
        )


@pytest.fixture(scope="session")
def with_keda(kube: Target) -> None:
    """KEDA and Prometheus beside the operator, which was there before them."""
    if not kube.audit_log:
        pytest.skip("KEDA is stopped on the way, which another cluster's is not for")
    keda.install()


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
    yield from scaled(kube, namespace, spec)


def scaled(kube: Target, namespace: str, spec: dict[str, Any]) -> Iterator[Scaled]:
    """Yield a service to be started, and see that it goes."""
    found = Scaled(kube, namespace, spec)
    yield found
    kube.kubectl("delete", "rerankerservice", NAME, found.where, "--ignore-not-found")
    eventually(lambda: not children(kube, NAME, namespace), "its children are gone")
    eventually(lambda: not found.pods(), "its pods are gone", 120)


@pytest.fixture
def load(kube: Target, service: Scaled) -> Iterator[Load]:
    """Clients that ask it, none at first."""
    with load_on(kube, service.url, DOCUMENTS) as found:
        yield found


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure for docs/performance.md, whether or not the test passes."""

    def print_it(text: str) -> None:
        with capsys.disabled():
            print()
            say(text)

    return print_it


def test_pods_follow_the_load_up_and_down_without_a_failed_request(
    service: Scaled, load: Load, report: Callable[[str], None]
) -> None:
    service.start(SCALING)

    report(service.scale_up(load))
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
    report(service.scale_up(load))
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

    with watched(service.kube, "horizontalpodautoscalers", service.where) as watch:
        # No adapter serves what it asks for here, so it leaves the pods as they are.
        for scaling, expected in (
            (two | {"type": "hpa"}, {NAME}),
            (None, set()),
            (two, {f"keda-hpa-{NAME}"}),
            (two | {"type": "hpa"}, {NAME}),
            (two, {f"keda-hpa-{NAME}"}),
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


def assert_all_answered(load: Load, report: Callable[[str], None]) -> None:
    """See that no request of the whole run failed, and that there were many."""
    counts = load.end()
    report(
        f"{counts['answers']} answers, {counts['refused']} refused with 429, "
        f"{len(counts['faults'])} failed"
    )
    assert counts["faults"] == []
    assert counts["answers"] > 50


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
