"""A RerankerService whose number of pods is others' business, and what tests look at on it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import yaml

from lab.load import Load
from lab.observe import children, eventually, ready, told
from lab.target import Target

# Each look of the HorizontalPodAutoscaler, of which the lab has one every 5 s, and a pod's start,
# on a machine that has other work.
SECONDS = 120
# Long enough for pods to go, if no data were taken for no work: see STABILIZATION_SECONDS.
HOLD_SECONDS = 20
STABILIZATION_SECONDS = 10
AT_WORK = ("Scaling", "AtMaximum")


class Scaled:
    """A RerankerService whose number of pods is others' business."""

    def __init__(self, kube: Target, namespace: str, name: str, spec: dict[str, Any]) -> None:
        self.kube = kube
        self.name = name
        self.where = f"--namespace={namespace}"
        self.selector = f"--selector=rerank.dev/service={name}"
        self.url = f"http://{name}.{namespace}.svc/v1/rerank"
        self._namespace = namespace
        self._spec = spec

    def ask(self, autoscaling: dict[str, Any] | None) -> None:
        """Apply it as a user would, without a number of pods."""
        body = {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "RerankerService",
            "metadata": {"name": self.name},
            "spec": {
                "model": {"name": "/models/tiny-reranker"},
                "accelerator": {"resource": "none"},
                **({} if autoscaling is None else {"autoscaling": autoscaling}),
                **self._spec,
            },
        }
        self.kube.kubectl("apply", self.where, "-f", "-", stdin=yaml.safe_dump(body))

    def start(self, autoscaling: dict[str, Any], seconds: float = SECONDS) -> None:
        """Have it with pods that serve within `seconds`, and an autoscaler that looks at them."""
        self.ask(autoscaling)
        eventually(self.is_ready, "it is Ready", seconds)
        self.wait_told(*AT_WORK)

    def is_ready(self) -> bool:
        """Tell whether as many pods serve as are wanted."""
        return ready(self.kube, self.name, self._namespace)

    def replicas(self) -> int:
        """Return the number of pods that is wanted."""
        found = self.kube.get("rerankerservice", self.name, self.where)
        return int(found["spec"]["replicas"])

    def told(self) -> tuple[str, str]:
        """Return reason and message of AutoscalerReady."""
        return told(self.kube, self.name, self._namespace, "AutoscalerReady")

    def wait_told(self, *reasons: str, seconds: float = SECONDS) -> None:
        """Wait until AutoscalerReady has one of these reasons."""
        eventually(lambda: self.told()[0] in reasons, f"AutoscalerReady: {reasons}", seconds)

    def pods(self) -> list[str]:
        """Return the names of its pods."""
        pods = self.kube.get("pods", self.selector, self.where)["items"]
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

    def wait_new(self, *old: str, seconds: float = SECONDS) -> None:
        """Wait until a pod that is none of these has answered a request."""
        eventually(
            lambda: any(self.answered(pod) for pod in self.pods() if pod not in old),
            "a new pod answers",
            seconds,
        )


@contextmanager
def scaled(kube: Target, namespace: str, name: str, spec: dict[str, Any]) -> Iterator[Scaled]:
    """Yield a service to be started, and see that it goes."""
    found = Scaled(kube, namespace, name, spec)
    yield found
    kube.kubectl("delete", "rerankerservice", name, found.where, "--ignore-not-found")
    eventually(lambda: not children(kube, name, namespace), "its children are gone")
    eventually(lambda: not found.pods(), "its pods are gone", 120)


def assert_all_answered(load: Load, report: Callable[[str], None]) -> None:
    """See that no request of the whole run failed or was refused, and that there were many."""
    counts = load.end()
    report(
        f"{counts['answers']} answers, {counts['refused']} refused with 429, "
        f"{len(counts['faults'])} failed"
    )
    assert counts["faults"] == []
    assert counts["refused"] == 0
    assert counts["answers"] > 50
