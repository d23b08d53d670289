"""Work that something outside the pods tells of: from no pod at all, and by a metrics adapter."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from e2e.scaled import SECONDS, STABILIZATION_SECONDS, Scaled, scaled
from lab import keda
from lab.demo import REQUEST, ask
from lab.images import PYTHON
from lab.observe import eventually
from lab.target import Target

# A stand-in for a gateway: it says how many seconds of work wait, as it is told by a file.
GATEWAY = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: gateway}}
spec:
  selector: {{matchLabels: {{app: gateway}}}}
  template:
    metadata: {{labels: {{app: gateway}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: gateway
          image: {PYTHON}
          imagePullPolicy: IfNotPresent
          ports: [{{name: http, containerPort: 8000}}]
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
          command:
            - python
            - -c
            - |
              from http.server import BaseHTTPRequestHandler, HTTPServer
              from pathlib import Path
              waiting = Path("/tmp/waiting")
              waiting.write_text("0")
              class Gauge(BaseHTTPRequestHandler):
                  def do_GET(self):
                      self.send_response(200)
                      self.send_header("Content-Type", "text/plain")
                      self.end_headers()
                      self.wfile.write(f"gateway_wait_seconds {{waiting.read_text()}}\\n".encode())
                  def log_message(self, *words): ...
              HTTPServer(("", 8000), Gauge).serve_forever()
"""
# A namespace for tests takes no pod as simple as this.
WHERE = "--namespace=default"
QUERY = "sum(gateway_wait_seconds)"
# What KEDA's metrics adapter calls the first trigger of a ScaledObject of that name.
EXTERNAL = {"name": "s0-prometheus", "matchLabels": {"scaledobject.keda.sh/name": "signal"}}
PROMETHEUS = {"serverAddress": keda.PROMETHEUS_URL, "query": QUERY}


class Gateway:
    """What tells of work."""

    def __init__(self, kube: Target) -> None:
        self._kube = kube

    def tell(self, seconds: float) -> None:
        """Have so much work wait."""
        command = ["sh", "-c", f"echo -n {seconds} > /tmp/waiting"]
        self._kube.kubectl("exec", "deployment/gateway", WHERE, "--", *command)


@pytest.fixture
def gateway(kube: Target, with_keda: None) -> Iterator[Gateway]:
    """A gateway without work."""
    kube.kubectl("apply", WHERE, "-f", "-", stdin=GATEWAY)
    kube.kubectl("rollout", "status", "deployment/gateway", WHERE, "--timeout=60s")
    yield Gateway(kube)
    kube.kubectl("delete", "deployment", "gateway", WHERE)


@pytest.fixture
def service(kube: Target, namespace: str, standin: str, gateway: Gateway) -> Iterator[Scaled]:
    """One of the stand-in for vLLM, to be started."""
    spec = {
        "image": standin,
        "engine": {"maxModelLen": 512},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "drainSeconds": 5,
    }
    with scaled(kube, namespace, "signalled", spec) as found:
        yield found


@pytest.fixture
def adapter(kube: Target, namespace: str, gateway: Gateway) -> Iterator[None]:
    """A metrics adapter that serves what the gateway tells: KEDA's, by an object of the user's."""
    found = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": "signal"},
        "spec": {
            "scaleTargetRef": {"name": "signal"},
            "minReplicaCount": 1,
            "maxReplicaCount": 1,
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": keda.PROMETHEUS_URL,
                        "query": QUERY,
                        "threshold": "1",
                    },
                }
            ],
        },
    }
    # What it scales has to be there. It is nobody's business here, and has no pod.
    target: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "signal"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "signal"}},
            "template": {
                "metadata": {"labels": {"app": "signal"}},
                "spec": {"containers": [{"name": "none", "image": "none"}]},
            },
        },
    }
    where = f"--namespace={namespace}"
    for body in (target, found):
        kube.kubectl("apply", where, "-f", "-", stdin=json.dumps(body))
    yield
    kube.kubectl("delete", "scaledobject,deployment", "signal", where)


def test_pods_come_from_none_by_a_query_and_go_again(
    kube: Target, service: Scaled, gateway: Gateway, report: Callable[[str], None]
) -> None:
    service.ask(
        {
            "minReplicas": 0,
            "maxReplicas": 2,
            "scaleDownStabilizationSeconds": STABILIZATION_SECONDS,
            "prometheus": PROMETHEUS,
        }
    )
    eventually(lambda: service.replicas() == 0 and not service.pods(), "no pod is there", 120)

    began = time.monotonic()
    gateway.tell(1.8)
    eventually(lambda: service.replicas() > 0, "a pod is wanted")
    wanted = time.monotonic() - began
    eventually(lambda: len(service.pods()) == 2 and service.is_ready(), "two pods serve")
    report(f"from work to a pod wanted {wanted:.1f} s, to two {time.monotonic() - began:.1f} s")
    assert len(ask(kube, service.url, REQUEST)["results"]) == len(REQUEST["documents"])

    gateway.tell(0)
    # One goes a minute.
    eventually(lambda: service.replicas() == 0 and not service.pods(), "no pod is left", 180)


def test_autoscaler_without_keda_follows_an_external_metric(
    service: Scaled, gateway: Gateway, adapter: None
) -> None:
    service.start(
        {
            "type": "hpa",
            "maxReplicas": 2,
            "scaleDownStabilizationSeconds": STABILIZATION_SECONDS,
            "externalMetric": EXTERNAL,
        }
    )
    assert service.told()[0] == "Scaling"

    gateway.tell(3)
    eventually(lambda: len(service.pods()) == 2 and service.is_ready(), "two pods serve")
    service.wait_told("AtMaximum")

    gateway.tell(0.5)
    eventually(lambda: service.replicas() == 1, "one pod is enough again", 2 * SECONDS)
