"""Rollouts under the real Deployment controller and scheduler, on a node of which GPUs are few.

What takes turns of a second or less is looked at here; tests/e2e/test_rollout.py has the rest, on a
real node.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from apiserver.controlplane import ControlPlane, eventually, start_control_plane
from apiserver.objects import Objects
from apiserver.operator_process import LEASE, OperatorProcess
from apiserver.workers import END_SECONDS, LOAD_SECONDS, Node, start_node, start_workers
from builders import make_body

ROOT = Path(__file__).parents[2]
# 15 s of patience, up to 16 s until the next pass, and the end of a pod, on a busy machine.
SECONDS = 90
SURGE = {"maxSurge": 1, "maxUnavailable": 0}
IN_PLACE = {"maxSurge": 0, "maxUnavailable": 1}
NEVER = 3600


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with controllers; others here have none, and count on that."""
    with start_control_plane(tmp_path_factory.mktemp("rollout")) as plane:
        for name in ("crd", "operator"):
            plane.apply((ROOT / "manifests" / f"{name}.yaml").read_text())
        established = ("--for=condition=Established", "crd/rerankerservices.rerank.dev")
        plane.kubectl("wait", *established, "--timeout=30s")
        # Of it only the rights are wanted here: the operator is a process.
        plane.kubectl("delete", "deployment", "rerank-operator", "-n", "rerank-system")
        yield plane


@pytest.fixture(scope="module")
def node(cluster: ControlPlane) -> Iterator[Node]:
    with start_workers(cluster) as node:
        yield node


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane) -> Iterator[OperatorProcess]:
    process = OperatorProcess(cluster, lease=LEASE)
    process.start()
    yield process
    process.stop()


class Rolling(Objects):
    """One RerankerService whose pods the node says to run."""

    def change(self, load: int = 0, end: int = 2, **spec: Any) -> None:
        """Ask for pods of another template, which take so many seconds to load and to end."""
        variables = {"ID": uuid4().hex, LOAD_SECONDS: str(load), END_SECONDS: str(end)}
        env = [{"name": name, "value": value} for name, value in variables.items()]
        self.back(podTemplate={"env": env}, **spec)

    def back(self, **spec: Any) -> None:
        """Ask for nothing but this; without arguments, for what there was at first."""
        self.replace(make_body(**spec)["spec"])

    def pods(self) -> list[dict[str, Any]]:
        """Return its pods, those that end among them."""
        found: list[dict[str, Any]] = self.plane.get(f"/api/v1/namespaces/{self.namespace}/pods")[
            "items"
        ]
        return found

    def serving(self) -> set[str]:
        """Return the UIDs of its pods that are ready and not told to end."""
        return {
            pod["metadata"]["uid"]
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
            and any(
                entry["type"] == "Ready" and entry["status"] == "True"
                for entry in pod["status"].get("conditions", [])
            )
        }

    def nodes(self) -> list[str]:
        """Return the nodes of its pods that are not told to end, one entry for each pod."""
        return sorted(
            pod["spec"].get("nodeName", "")
            for pod in self.pods()
            if "deletionTimestamp" not in pod["metadata"]
        )

    def strategy(self) -> dict[str, int]:
        numbers: dict[str, int] = self.child("Deployment")["spec"]["strategy"]["rollingUpdate"]
        return numbers

    def wait_told(self, reason: str, words: str = "") -> None:
        def is_told() -> bool:
            found = self.condition()
            return (
                found["observedGeneration"] == self.get()["metadata"]["generation"]
                and found["reason"] == reason
                and words in found["message"]
            )

        eventually(is_told, SECONDS)

    def wait_ready(self) -> None:
        self.wait_told("AllPodsReady")


@pytest.fixture
def start(
    cluster: ControlPlane, node: Node, operator: OperatorProcess
) -> Iterator[Callable[..., Rolling]]:
    """Makes a service on so many GPUs, and waits until it is Ready."""
    namespace = f"test-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", namespace)
    demo = Rolling(cluster, namespace)

    def start(gpus: int, **spec: Any) -> Rolling:
        node.advertise_gpus(gpus)
        demo.create(**spec)
        demo.wait_ready()
        return demo

    yield start
    # No garbage collector runs here.
    for kind in ("rerankerservices", "jobs", "deployments", "replicasets"):
        cluster.kubectl("delete", kind, "--all", f"--namespace={namespace}")
    cluster.kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--force")


def test_auto_takes_the_old_pods_place_on_the_only_gpu(start: Callable[..., Rolling]) -> None:
    demo = start(gpus=1)
    before = demo.serving()

    demo.change()
    demo.wait_told("WaitingForGPU", "Insufficient nvidia.com/gpu")
    assert demo.serving() == before, "the old pod serves on at first"
    demo.wait_told("WaitingForGPU", "the new ones take their place")
    assert demo.strategy() == IN_PLACE
    demo.wait_ready()

    assert demo.strategy() == SURGE
    assert not before & demo.serving()


def test_auto_with_a_free_gpu_never_has_fewer_pods(start: Callable[..., Rolling]) -> None:
    demo = start(gpus=2)

    demo.change(load=2)
    while demo.condition()["reason"] != "AllPodsReady":
        assert demo.serving()
        assert demo.strategy() == SURGE


def test_second_change_waits_for_what_the_first_one_frees(start: Callable[..., Rolling]) -> None:
    """The first change's pod holds the second GPU while it ends. The old pod has to serve on."""
    demo = start(gpus=2)
    before = demo.serving()
    # Longer than the operator waits for room.
    demo.change(load=NEVER, end=25)
    demo.wait_told("LoadingModel")

    demo.change()
    demo.wait_told("WaitingForGPU")
    while demo.condition()["reason"] != "AllPodsReady":
        assert demo.strategy() == SURGE
        serving = demo.serving()
        assert before & serving or len(serving) == 1

    assert not before & demo.serving()


@pytest.mark.parametrize("mode", ["Auto", "InPlace"])
def test_more_pods_than_gpus_are_all_replaced(
    start: Callable[..., Rolling], node: Node, mode: str
) -> None:
    demo = start(gpus=2, replicas=2, rollout=mode)
    demo.back(replicas=3, rollout=mode)
    demo.wait_told("WaitingForGPU")
    before = {pod["metadata"]["uid"] for pod in demo.pods()}

    demo.change(replicas=3, rollout=mode)
    eventually(
        lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in demo.pods()), 2 * SECONDS
    )
    demo.wait_told("WaitingForGPU")
    node.advertise_gpus(3)
    demo.wait_ready()

    eventually(lambda: demo.strategy() == (SURGE if mode == "Auto" else IN_PLACE))


@pytest.fixture
def priority(cluster: ControlPlane) -> Iterator[str]:
    """A class of pods that may take the place of those without one."""
    cluster.kubectl("create", "priorityclass", "high", "--value=100")
    yield "high"
    cluster.kubectl("delete", "priorityclass", "high")


def test_auto_gives_way_where_preemption_of_others_frees_no_gpu(
    priority: str, second: Node, start: Callable[..., Rolling]
) -> None:
    """Of the other node, which has no GPU, the scheduler says that to preempt there is no use."""
    second.advertise_gpus(0)
    demo = start(gpus=1, podTemplate={"priorityClassName": priority})
    add_pod(demo, "low", "stand-in")

    env = [{"name": "ID", "value": "1"}]
    demo.back(podTemplate={"priorityClassName": priority, "env": env})
    demo.wait_told("WaitingForGPU", "the new ones take their place")
    demo.wait_ready()


def test_auto_leaves_an_old_pod_whose_place_no_new_one_could_have(
    second: Node, start: Callable[..., Rolling]
) -> None:
    """Its node is cordoned, and the other has no GPU."""
    second.advertise_gpus(0)
    demo = start(gpus=1)
    before = demo.serving()
    demo.plane.kubectl("cordon", "stand-in")
    try:
        demo.change()
        demo.wait_told("WaitingForGPU", "Insufficient nvidia.com/gpu")
        # Its patience, and the time until the next pass.
        until = time.monotonic() + 32
        while time.monotonic() < until:
            assert demo.serving() == before
            assert demo.strategy() == SURGE
            time.sleep(0.5)
    finally:
        demo.plane.kubectl("uncordon", "stand-in")
    demo.wait_ready()

    assert not before & demo.serving()


def add_pod(demo: Rolling, name: str, node: str) -> None:
    """Have a pod of somebody else's on a node, with its name for a label."""
    spec = {
        # Nobody makes one called default here.
        "serviceAccountName": "demo",
        "containers": [{"image": name, "name": name}],
        "nodeSelector": {HOST: node},
    }
    body = {"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}
    pods = f"/api/v1/namespaces/{demo.namespace}/pods"
    demo.plane.http.post(pods, json=body).raise_for_status()
    eventually(lambda: demo.plane.get(f"{pods}/{name}")["status"]["phase"] == "Running")


HOST = "kubernetes.io/hostname"
MODELS = {"existingClaim": "models", "prefetch": False}
# Bound as by the controller of volumes, which does not run here.
VOLUME = """
apiVersion: v1
kind: PersistentVolume
metadata: {name: NAME}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  hostPath: {path: /nowhere}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: models, annotations: {pv.kubernetes.io/bind-completed: "yes"}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Gi}}
  storageClassName: ""
  volumeName: NAME
"""


def make_volume(demo: Rolling) -> None:
    """Have the claim `models`, whose volume one node may have."""
    demo.plane.apply(VOLUME.replace("NAME", f"volume-{demo.namespace}"), demo.namespace)


def spread(when_unsatisfiable: str) -> dict[str, Any]:
    """Return the pod template that wants the pods of each rollout on as many nodes as there are."""
    constraint = {
        "maxSkew": 1,
        "topologyKey": HOST,
        "whenUnsatisfiable": when_unsatisfiable,
        "matchLabelKeys": ["pod-template-hash"],
    }
    return {"topologySpreadConstraints": [constraint]}


@pytest.fixture
def second(cluster: ControlPlane, node: Node) -> Iterator[Node]:
    """One more node, with room for all pods."""
    with start_node(cluster, "second") as second:
        second.advertise_gpus(4)
        yield second


def test_volume_of_one_node_brings_pods_there_that_were_spread_before(
    second: Node, start: Callable[..., Rolling]
) -> None:
    demo = start(gpus=4, replicas=2, podTemplate=spread("DoNotSchedule"))
    make_volume(demo)
    before, nodes = demo.serving(), demo.nodes()

    demo.back(replicas=2, podTemplate=spread("ScheduleAnyway"), cache=MODELS)
    demo.wait_ready()

    assert nodes == ["second", "stand-in"]
    assert not before & demo.serving()
    assert len(demo.nodes()) == 2 and len(set(demo.nodes())) == 1


def test_volume_may_be_where_none_of_the_pods_was_before(
    second: Node, start: Callable[..., Rolling]
) -> None:
    demo = start(gpus=4, podTemplate={"nodeSelector": {HOST: "stand-in"}})
    make_volume(demo)

    demo.back(cache=MODELS, podTemplate={"nodeSelector": {HOST: "second"}})
    demo.wait_ready()

    assert demo.nodes() == ["second"]


def test_affinity_of_the_users_that_no_pod_meets_beside_the_volumes_is_told(
    start: Callable[..., Rolling],
) -> None:
    demo = start(gpus=4)
    make_volume(demo)
    before = demo.serving()
    near = {"topologyKey": HOST, "labelSelector": {"matchLabels": {"app": "index"}}}
    add_pod(demo, "index", "stand-in")
    required = {"requiredDuringSchedulingIgnoredDuringExecution": [near]}
    preferred = {
        "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": near}]
    }

    demo.back(cache=MODELS, podTemplate={"affinity": {"podAffinity": required}})
    demo.wait_told("Unschedulable", "spec.podTemplate.affinity.podAffinity has required")
    assert before <= demo.serving()
    demo.back(cache=MODELS, podTemplate={"affinity": {"podAffinity": preferred}})
    demo.wait_ready()


def test_download_whose_pod_a_quota_refuses_says_so_and_goes_on_once_it_may(
    start: Callable[..., Rolling],
) -> None:
    demo = start(gpus=1)
    make_volume(demo)
    where = f"--namespace={demo.namespace}"
    demo.plane.kubectl("create", "quota", "pods", "--hard=pods=1", where)
    quota = f"/api/v1/namespaces/{demo.namespace}/resourcequotas/pods"
    eventually(lambda: demo.plane.get(quota).get("status", {}).get("used"))

    demo.back(cache={"existingClaim": "models"})
    demo.wait_told("QuotaExceeded", "exceeded quota: pods")
    told = demo.condition("ModelCached")
    demo.plane.patch(quota, {"spec": {"hard": {"pods": "2"}}})

    # The controller asks again after twice the time that it has asked before.
    eventually(lambda: demo.condition("ModelCached")["reason"] == "Downloading", 2 * SECONDS)
    assert told["reason"] == "QuotaExceeded"
    assert told["message"].startswith("no pod can be made to download Qwen/Qwen3-Reranker-0.6B: ")
    assert demo.condition("Available")["status"] == "True"
