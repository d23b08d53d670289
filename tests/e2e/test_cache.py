"""A model is downloaded once, to a volume; pods start from it without the hub and its token."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.demo import REQUEST, SAMPLE, ask, wait_ready
from lab.observe import children, eventually
from lab.target import Target

STANDIN = Path(__file__).parents[1] / "standin_hub.py"
NAME = "cached"
CANARY = "hf_canary"

# A stand-in for the hub, with two names for the model that is in the server's image.
HUB = """
apiVersion: v1
kind: Service
metadata: {name: hub}
spec:
  selector: {app: hub}
  ports: [{port: 80, targetPort: 8000}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: hub}
spec:
  selector: {matchLabels: {app: hub}}
  template:
    metadata: {labels: {app: hub}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: hub
        image: IMAGE
        command: [python3, /app/standin_hub.py, "8000"]
        args: [org/first=/models/tiny-reranker=CANARY, org/second=/models/tiny-reranker]
        readinessProbe: {httpGet: {path: /requests, port: 8000}, periodSeconds: 1}
        volumeMounts: [{name: app, mountPath: /app}]
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      volumes: [{name: app, configMap: {name: hub}}]
"""
PUT = """
import sys, urllib.request
url = "http://127.0.0.1:8000" + sys.argv[1]
urllib.request.urlopen(urllib.request.Request(url, sys.argv[2].encode(), method="PUT"))
"""


class Service:
    """The RerankerService under test, and what is around it."""

    def __init__(self, kube: Target, namespace: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.here = f"--namespace={namespace}"
        self.url = f"http://{NAME}.{namespace}.svc/v1/rerank"

    def get(self) -> dict[str, Any]:
        """Return it as it is now."""
        return self.kube.get("rerankerservice", NAME, self.here)

    def patch(self, spec: dict[str, Any]) -> None:
        """Ask for something else."""
        words = ["patch", "rerankerservice", NAME, self.here, "--type=merge", "-p"]
        self.kube.kubectl(*words, json.dumps({"spec": spec}))

    def condition(self, name: str) -> dict[str, Any]:
        """Return a condition; {} while it is not there."""
        conditions = self.get().get("status", {}).get("conditions", [])
        return next((found for found in conditions if found["type"] == name), {})

    def cached(self, reason: str, words: str, seconds: float = 90) -> None:
        """Wait until ModelCached has a reason, and words in its sentence."""

        def told() -> bool:
            found = self.condition("ModelCached")
            return found.get("reason") == reason and words in found["message"]

        eventually(told, f"ModelCached is {reason}: {words}", seconds)

    def pods(self, name: str = "reranker") -> list[dict[str, Any]]:
        """Return the pods that serve, or those that download."""
        labels = f"--selector=rerank.dev/service={NAME},app.kubernetes.io/name={name}"
        found: list[dict[str, Any]] = self.kube.get("pods", self.here, labels)["items"]
        return found

    def hub(self, path: str, text: str) -> None:
        """Tell the hub something."""
        words = ["exec", self.here, "deployment/hub", "--", "python3", "-c", PUT, path, text]
        self.kube.kubectl(*words)

    def scale_hub(self, replicas: int) -> None:
        """Take the hub away, or have it back."""
        where = ["deployment/hub", self.here]
        self.kube.kubectl("scale", *where, f"--replicas={replicas}")
        self.kube.kubectl("rollout", "status", *where, "--timeout=120s")

    def answers(self) -> str:
        """Have documents ranked, and return the name of the model that did it."""
        answer = ask(self.kube, self.url, REQUEST)
        assert "captures screenshots" in answer["results"][0]["document"]["text"]
        return str(answer["model"])


@pytest.fixture(scope="module")
def service(kube: Target, namespace: str) -> Iterator[Service]:
    """A RerankerService with a cache, whose hub wants a token that the Secret does not hold yet."""
    found = Service(kube, namespace)
    kube.kubectl("create", "configmap", "hub", found.here, f"--from-file={STANDIN}")
    manifest = HUB.replace("IMAGE", kube.server_image).replace("CANARY", CANARY)
    kube.kubectl("apply", found.here, "-f", "-", stdin=manifest)
    found.scale_hub(1)
    kube.kubectl("create", "secret", "generic", "hub", found.here, "--from-literal=token=wrong")
    body = yaml.safe_load(SAMPLE.read_text())
    body["metadata"]["name"] = NAME
    body["spec"] |= {
        "model": {
            "name": "org/first",
            "hubEndpoint": f"http://hub.{namespace}.svc",
            "tokenSecretRef": {"name": "hub"},
        },
        "cache": {"size": "100Mi"},
    }
    kube.kubectl("apply", found.here, "-f", "-", stdin=yaml.safe_dump(body))
    yield found
    kube.kubectl("delete", "rerankerservice", NAME, found.here)
    eventually(lambda: not children(kube, NAME, namespace), "its children are gone")
    kube.kubectl("delete", "persistentvolumeclaim", NAME, found.here, "--ignore-not-found")
    kube.kubectl("delete", "deployment,service,configmap,secret", "hub", found.here)


def test_wrong_token_is_told_and_the_right_one_is_all_that_pods_need(service: Service) -> None:
    service.cached("DownloadFailed", "the token given may not read it (401)")
    assert service.condition("Ready")["reason"] == "DownloadFailed"
    assert service.pods() == []

    secret = json.dumps({"stringData": {"token": CANARY}})
    service.kube.kubectl("patch", "secret", "hub", service.here, "-p", secret)

    service.cached("Downloaded", "org/first at commit ", seconds=180)
    # From here on there is no hub: the pods have no use for one.
    service.scale_hub(0)
    wait_ready(service.kube, NAME, service.namespace)
    service.scale_hub(1)
    assert service.answers() == "first"
    assert len(service.get()["status"]["model"]["revision"]) == 40


def test_token_is_in_the_pod_that_downloads_and_nowhere_else(service: Service) -> None:
    (download,) = service.pods("reranker-download")
    (server,) = service.pods()
    events = service.kube.kubectl("get", "events", service.here, "-o", "json")
    log = service.kube.kubectl("logs", download["metadata"]["name"], service.here)
    words = ["exec", server["metadata"]["name"], service.here, "--"]
    inside = service.kube.kubectl(*words, "env")

    assert "HF_TOKEN" in str(download["spec"])
    assert "HF_TOKEN" not in inside
    for text in (str(server), events, log, inside, str(service.get())):
        assert CANARY not in text
    mounts = service.kube.kubectl(*words, "cat", "/proc/mounts")
    (mount,) = [line.split() for line in mounts.splitlines() if "/var/cache/rerank/hub " in line]
    assert "ro" in mount[3].split(",")


def test_model_that_is_not_there_leaves_the_old_one_serving(service: Service) -> None:
    before = {pod["metadata"]["uid"] for pod in service.pods()}

    service.patch({"model": {"name": "org/missing"}})

    service.cached("DownloadFailed", "has no org/missing")
    assert service.condition("Ready")["status"] == "False"
    assert service.condition("Available")["status"] == "True"
    assert service.answers() == "first"
    assert {pod["metadata"]["uid"] for pod in service.pods()} == before


def test_other_model_is_rolled_out_once_it_is_there(service: Service) -> None:
    # For as long as it takes until the operator asks the pod.
    service.hub("/fault", "stalled")

    service.patch({"model": {"name": "org/second"}})

    service.cached("Downloading", " MiB (0 %)")
    told = service.condition("ModelCached")["message"]
    service.hub("/fault", "slow")
    assert "org/second is being downloaded since" in told
    assert service.answers() == "first"
    service.cached("Downloaded", "org/second at commit ")
    wait_ready(service.kube, NAME, service.namespace)
    # Until all of the cluster has taken the old pod, which answers meanwhile, out of the Service.
    eventually(lambda: service.answers() == "second", "the new model answers")
    jobs = service.kube.get("jobs", service.here, f"--selector=rerank.dev/service={NAME}")
    assert len(jobs["items"]) == 1


def test_volume_stays_and_is_found_again(service: Service) -> None:
    before = service.kube.get("persistentvolumeclaim", NAME, service.here)["metadata"]["uid"]
    body = service.get()
    service.hub("/fault", "stalled")

    service.kube.kubectl("delete", "rerankerservice", NAME, service.here)
    eventually(lambda: not children(service.kube, NAME, service.namespace), "the children are gone")
    again = {key: body[key] for key in ("apiVersion", "kind", "spec")}
    again["metadata"] = {"name": NAME}
    service.kube.kubectl("apply", service.here, "-f", "-", stdin=json.dumps(again))

    # The hub is asked what the branch is, and gives out no file.
    service.cached("Downloaded", "org/second at commit ")
    after = service.kube.get("persistentvolumeclaim", NAME, service.here)["metadata"]["uid"]
    assert after == before
