"""KEDA and Prometheus on the lab: they scale what they are told to, and go with it."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lab import cluster, images, keda, node
from lab.errors import LabError
from lab.leftovers import leftovers
from lab.observe import eventually

TOYS = "toys"
# A stand-in for a server: each pod says that the same work waits, whatever their number.
TOY = f"""
apiVersion: v1
kind: Service
metadata: {{name: toy}}
spec: {{selector: {{app: toy}}, ports: [{{port: 80, targetPort: http}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: toy}}
spec:
  selector: {{matchLabels: {{app: toy}}}}
  template:
    metadata: {{labels: {{app: toy}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: toy
          image: {images.PYTHON}
          imagePullPolicy: IfNotPresent
          ports: [{{name: http, containerPort: 8000}}]
          readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
          command:
            - python
            - -c
            - |
              from http.server import BaseHTTPRequestHandler, HTTPServer
              class Gauge(BaseHTTPRequestHandler):
                  def do_GET(self):
                      self.send_response(200)
                      self.send_header("Content-Type", "text/plain")
                      self.end_headers()
                      self.wfile.write(b"toy_waiting 0.35\\n")
              HTTPServer(("", 8000), Gauge).serve_forever()
"""
# With 0.1 for each pod both ask for four.
TRIGGERS = {
    "metrics-api": {
        "url": f"http://toy.{TOYS}.svc:8000/metrics",
        "format": "prometheus",
        "valueLocation": "toy_waiting",
        "targetValue": "0.1",
        "aggregateFromKubeServiceEndpoints": "true",
        "aggregationType": "min",
    },
    "prometheus": {
        "serverAddress": keda.PROMETHEUS_URL,
        "query": f'min(toy_waiting{{namespace="{TOYS}",pod=~"toy-.+"}})',
        "threshold": "0.1",
        "ignoreNullValues": "false",
    },
}


def scaled_object(name: str, trigger: str) -> str:
    """Return a ScaledObject of the toy, in JSON."""
    found = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"name": "toy"},
            "minReplicaCount": 1,
            "maxReplicaCount": 6,
            "triggers": [{"type": trigger, "metadata": TRIGGERS[trigger]}],
        },
    }
    return json.dumps(found)


def kubectl(*words: str, stdin: str | None = None) -> str:
    return cluster.kubectl(f"--namespace={TOYS}", *words, stdin=stdin)


def get(*words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(kubectl("get", *words, "-o", "json"))
    return found


@pytest.fixture(scope="module")
def lab() -> Iterator[None]:
    """A lab with KEDA."""
    if node.running():
        pytest.fail("a lab is running: `make lab-down` first")
    try:
        cluster.up()
        keda.install()
        cluster.kubectl("create", "namespace", TOYS)
        yield
    finally:
        cluster.down()


@pytest.fixture
def toy(lab: None) -> Iterator[None]:
    """One pod that says that work waits."""
    kubectl("apply", "-f", "-", stdin=TOY)
    kubectl("rollout", "status", "deploy/toy", "--timeout=60s")
    yield
    kubectl("delete", "scaledobjects", "--all")
    kubectl("delete", "deploy", "toy", "--wait")


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_keda_scales_a_target_and_lets_it_be_when_it_may_not(toy: None, trigger: str) -> None:
    kubectl("apply", "-f", "-", stdin=scaled_object("toy", trigger))

    eventually(lambda: get("deploy", "toy")["spec"]["replicas"] == 4, "four pods are asked for")
    (metric,) = get("hpa", "keda-hpa-toy")["spec"]["metrics"]
    assert metric["external"]["target"] == {"type": "AverageValue", "averageValue": "100m"}
    kubectl("delete", "scaledobject", "toy")
    eventually(lambda: not get("hpa")["items"], "its autoscaler is gone")
    assert get("deploy", "toy")["spec"]["replicas"] == 4


def test_second_scaled_object_of_a_target_is_refused(toy: None) -> None:
    kubectl("apply", "-f", "-", stdin=scaled_object("toy", "metrics-api"))

    with pytest.raises(LabError, match="already managed by the ScaledObject 'toy'"):
        kubectl("apply", "-f", "-", stdin=scaled_object("other", "metrics-api"))


def test_install_again_changes_nothing(lab: None) -> None:
    before = cluster.kubectl("get", "pods", "-n", "keda", "-o", "name")

    keda.install()

    assert cluster.kubectl("get", "pods", "-n", "keda", "-o", "name") == before


def test_end_of_the_lab_is_the_end_of_keda(lab: None) -> None:
    cluster.down()

    assert leftovers() == []
