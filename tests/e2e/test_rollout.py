"""How new pods take the place of old ones, where GPUs are few. No GPU stands behind those here."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from lab.demo import CLIENT_IMAGE
from lab.observe import children, eventually, ready, told
from lab.target import Target

NAME = "rolling"
# A change and what follows: 15 s of patience, up to 16 s until the next pass, 10 s of a pod's end.
SECONDS = 120

# Asks over and over, on a new connection each time, until it is told to stop by a file.
CLIENT = """
import json, os, sys, time, urllib.request
body = json.dumps({"query": "a", "documents": ["b", "c"]}).encode()
request = urllib.request.Request(sys.argv[1], body, {"Content-Type": "application/json"})
count, faults = 0, []
while not os.path.exists("/tmp/stop"):
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            json.load(response)
        count += 1
    except Exception as error:
        faults.append(repr(error))
    time.sleep(0.02)
print(json.dumps({"answers": count, "faults": faults}))
"""


class Rolling:
    """One RerankerService of the stand-in server, which asks for a GPU a pod."""

    def __init__(self, kube: Target, namespace: str, image: str) -> None:
        self.kube = kube
        self.namespace = namespace
        self.where = f"--namespace={namespace}"
        self._image = image

    def ask(self, env: dict[str, str] | None = None, **spec: Any) -> None:
        """Ask for pods with these variables; others than before are a new template."""
        variables = [{"name": name, "value": value} for name, value in (env or {}).items()]
        body = {
            "apiVersion": "rerank.dev/v1alpha1",
            "kind": "RerankerService",
            "metadata": {"name": NAME},
            "spec": {
                "model": {"name": "/models/tiny-reranker"},
                "engine": {"maxModelLen": 512},
                "image": self._image,
                "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
                "drainSeconds": 5,
                "podTemplate": {"env": variables},
                **spec,
            },
        }
        self.kube.kubectl("apply", self.where, "-f", "-", stdin=yaml.safe_dump(body))

    def wait_ready(self) -> None:
        eventually(lambda: ready(self.kube, NAME, self.namespace), "Ready", SECONDS)

    def told(self) -> tuple[str, str]:
        """Return reason and message of Ready."""
        return told(self.kube, NAME, self.namespace)

    def wait_told(self, reason: str, words: str = "") -> None:
        def is_told() -> bool:
            found = self.told()
            return found[0] == reason and words in found[1]

        eventually(is_told, f"{reason}: {words}", SECONDS)

    def strategy(self) -> dict[str, int]:
        deployment = self.kube.get("deployment", NAME, self.where)
        numbers: dict[str, int] = deployment["spec"]["strategy"]["rollingUpdate"]
        return numbers

    def wait_surge(self) -> None:
        eventually(lambda: self.strategy() == SURGE, "the strategy is a surge again")

    def pods(self) -> list[str]:
        """Return the UIDs of its pods that are not ending."""
        found = self.all_pods()
        return [pod["uid"] for pod in found if "deletionTimestamp" not in pod]

    def all_pods(self) -> list[dict[str, Any]]:
        """Return the metadata of its pods."""
        selector = f"--selector=rerank.dev/service={NAME}"
        found = self.kube.get("pods", selector, self.where)["items"]
        return [pod["metadata"] for pod in found]


SURGE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}


@pytest.fixture
def rolling(
    kube: Target, namespace: str, standin: str, gpus: Callable[[int], None]
) -> Iterator[Callable[..., Rolling]]:
    """Starts a service on a node of so many GPUs, and waits until it is Ready."""
    found = Rolling(kube, namespace, standin)
    advertise = gpus

    def start(gpus: int, **spec: Any) -> Rolling:
        advertise(gpus)
        found.ask(**spec)
        found.wait_ready()
        return found

    yield start
    kube.kubectl("delete", "rerankerservice", NAME, found.where, "--ignore-not-found")
    eventually(lambda: not children(kube, NAME, namespace), "its children are gone")
    eventually(lambda: not found.all_pods(), "its pods are gone")


def test_auto_takes_the_old_pods_place_on_the_only_gpu(rolling: Callable[..., Rolling]) -> None:
    service = rolling(gpus=1)
    before = service.pods()

    service.ask(env={"A": "1"})
    service.wait_told("WaitingForGPU", "Insufficient nvidia.com/gpu")
    assert set(before) < set(service.pods()), "the old pod stays at first"
    service.wait_told("WaitingForGPU", "the new ones take their place")
    assert service.strategy() == IN_PLACE
    service.wait_ready()

    service.wait_surge()
    assert not set(before) & set(service.pods())


def test_auto_in_place_goes_on_under_an_operator_that_is_restarted(
    rolling: Callable[..., Rolling],
) -> None:
    service = rolling(gpus=1)

    service.ask(env={"A": "1", "STANDIN_LOAD_SECONDS": "20"})
    service.wait_told("WaitingForGPU", "the new ones take their place")
    service.kube.kubectl("delete", "pods", "--all", "--namespace=rerank-system")
    service.wait_told("LoadingModel")
    assert service.strategy() == IN_PLACE
    service.wait_ready()

    service.wait_surge()


def test_change_back_heals_a_rollout_in_place_that_does_not_start(
    rolling: Callable[..., Rolling],
) -> None:
    service = rolling(gpus=1)

    service.ask(env={"STANDIN_LOAD_SECONDS": "3600"})
    service.wait_told("LoadingModel")
    assert len(service.pods()) == 1, "the old pod is gone, and the new one holds its GPU"
    service.ask()
    service.wait_ready()

    service.wait_surge()


def test_surge_waits_and_says_so_until_it_is_changed_back(rolling: Callable[..., Rolling]) -> None:
    service = rolling(gpus=1, rollout="Surge")
    before = service.pods()

    service.ask(env={"A": "1"}, rollout="Surge")
    service.wait_told("WaitingForGPU", "spec.rollout is Surge")
    available = told(service.kube, NAME, service.namespace, "Available")
    assert available[0] == "PodsAvailable"
    service.ask(rollout="Surge")
    service.wait_ready()

    assert service.pods() == before


def test_surge_that_waits_goes_on_when_it_is_set_to_auto(rolling: Callable[..., Rolling]) -> None:
    service = rolling(gpus=1, rollout="Surge")

    service.ask(env={"A": "1"}, rollout="Surge")
    service.wait_told("WaitingForGPU", "spec.rollout is Surge")
    service.ask(env={"A": "1"})

    service.wait_ready()


def test_in_place_ends_the_old_pod_first_although_there_is_room(
    rolling: Callable[..., Rolling],
) -> None:
    service = rolling(gpus=2, rollout="InPlace")
    assert service.strategy() == IN_PLACE

    service.ask(env={"STANDIN_LOAD_SECONDS": "5"}, rollout="InPlace")
    service.wait_told("LoadingModel")
    assert len(service.pods()) == 1
    service.wait_ready()

    assert service.strategy() == IN_PLACE


def test_more_pods_than_gpus_are_all_replaced(
    rolling: Callable[..., Rolling], gpus: Callable[[int], None]
) -> None:
    service = rolling(gpus=2, replicas=2)
    service.ask(replicas=3)
    service.wait_told("WaitingForGPU")
    before = service.pods()

    service.ask(env={"A": "1"}, replicas=3)
    eventually(
        lambda: len(service.pods()) == 3 and not set(before) & set(service.pods()),
        "no pod of before is left",
        2 * SECONDS,
    )
    service.wait_told("WaitingForGPU")
    gpus(3)
    service.wait_ready()

    service.wait_surge()


def test_auto_gives_way_to_a_quota(rolling: Callable[..., Rolling]) -> None:
    service = rolling(gpus=2)
    kube, where = service.kube, service.where
    kube.kubectl("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=1", where)
    try:
        service.ask(env={"A": "1"})
        service.wait_told("QuotaExceeded", "exceeded quota: gpus")
        service.wait_told("QuotaExceeded", "the new ones take their place")
        service.wait_ready()
    finally:
        kube.kubectl("delete", "quota", "gpus", where)

    service.wait_surge()


def test_auto_with_a_free_gpu_loses_no_request(rolling: Callable[..., Rolling]) -> None:
    service = rolling(gpus=2)
    # The test's own namespace takes no pod as simple as this.
    kube, where = service.kube, "--namespace=default"
    url = f"http://{NAME}.{service.namespace}.svc/v1/rerank"
    command = ["--restart=Never", "--command", "--", "python", "-c", CLIENT, url]
    kube.kubectl("run", "asker", where, f"--image={CLIENT_IMAGE}", *command)
    try:
        kube.kubectl("wait", "pod/asker", where, "--for=condition=Ready", "--timeout=60s")
        service.ask(env={"A": "1", "STANDIN_LOAD_SECONDS": "3"})
        service.wait_ready()
        eventually(lambda: len(service.pods()) == 1, "the old pod is gone")
        kube.kubectl("exec", "asker", where, "--", "touch", "/tmp/stop")
        kube.kubectl("wait", "pod/asker", where, "--for=jsonpath={.status.phase}=Succeeded")
        result = json.loads(kube.kubectl("logs", "asker", where))
    finally:
        kube.kubectl("delete", "pod", "asker", where, "--grace-period=0", "--force")

    assert result["faults"] == []
    assert result["answers"] > 100
