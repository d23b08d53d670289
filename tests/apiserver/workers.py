"""The real Deployment controller and scheduler, and a node of which only a stand-in is there."""

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from apiserver.controlplane import ControlPlane, daemon

CONTROLLERS = "deployment-controller,replicaset-controller,job-controller,resourcequota-controller"
LOAD_SECONDS = "STANDIN_LOAD_SECONDS"
END_SECONDS = "STANDIN_END_SECONDS"


@contextmanager
def start_workers(plane: ControlPlane) -> Iterator["Node"]:
    """Run controllers, scheduler and a node while the block runs."""
    commands = plane.commands
    with ExitStack() as stack:
        for name, command in (
            ("controllers", [*commands.controller_manager(), f"--controllers={CONTROLLERS}"]),
            ("scheduler", commands.scheduler()),
        ):
            log = plane.folder / f"{name}.log"
            # No port: several of these may run on one machine.
            stack.enter_context(daemon([*command, "--secure-port=0"], log))
        yield stack.enter_context(start_node(plane, "stand-in"))


@contextmanager
def start_node(plane: ControlPlane, name: str) -> Iterator["Node"]:
    """Have a node while the block runs; no pod may be left there at its end."""
    node = Node(plane, name)
    try:
        yield node
    finally:
        node.stop()


class Node:
    """A stand-in for a kubelet: says of its pods that they run, serve and end, and runs none.

    How many seconds a pod takes to be ready, and how many to end, is in variables of those names.
    """

    def __init__(self, plane: ControlPlane, name: str) -> None:
        self._plane = plane
        self._path = f"/api/v1/nodes/{name}"
        self._pods = f"/api/v1/pods?fieldSelector=spec.nodeName={name}"
        self._seen: dict[str, float] = {}
        self._ending: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        metadata = {"name": name, "labels": {"kubernetes.io/hostname": name}}
        body = {"apiVersion": "v1", "kind": "Node", "metadata": metadata}
        plane.http.post("/api/v1/nodes", json=body).raise_for_status()
        # Admission marks each new node as not ready.
        plane.patch(self._path, {"spec": {"taints": None}})
        self.advertise_gpus(0)
        self._thread.start()

    def advertise_gpus(self, count: int) -> None:
        """Let the node have so many GPUs."""
        resources = {"cpu": "64", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": str(count)}
        status = {"capacity": resources, "allocatable": resources}
        conditions = [{"type": "Ready", "status": "True", "reason": "StandIn", "message": ""}]
        self._plane.patch(f"{self._path}/status", {"status": status | {"conditions": conditions}})

    def stop(self) -> None:
        """Go, and attend to no pod any more."""
        self._stopped.set()
        self._thread.join()
        self._plane.delete(self._path)

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            for pod in self._plane.get(self._pods)["items"]:
                self._attend(pod)

    def _attend(self, pod: dict[str, Any]) -> None:
        metadata, now = pod["metadata"], time.monotonic()
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        container = pod["spec"]["containers"][0]
        variables = {entry["name"]: entry.get("value") for entry in container.get("env", [])}
        if "deletionTimestamp" in metadata:
            ending = now - self._ending.setdefault(metadata["uid"], now)
            if ending >= float(variables.get(END_SECONDS) or 2):
                self._plane.http.delete(f"{path}?gracePeriodSeconds=0")
            return
        loading = now - self._seen.setdefault(metadata["uid"], now)
        ready = loading >= float(variables.get(LOAD_SECONDS) or 0)
        conditions = pod["status"].get("conditions", [])
        if any(entry["type"] == "Ready" and entry["status"] == str(ready) for entry in conditions):
            return
        status = {
            "phase": "Running",
            "conditions": [
                {"type": "PodScheduled", "status": "True"},
                {"type": "Ready", "status": str(ready)},
            ],
            "containerStatuses": [
                {
                    "name": container["name"],
                    "image": container["image"],
                    "imageID": "",
                    "ready": ready,
                    "restartCount": 0,
                    "state": {"running": {}},
                }
            ],
        }
        # A pod that has just gone has no status to write.
        headers = {"Content-Type": "application/merge-patch+json"}
        self._plane.http.patch(f"{path}/status", json={"status": status}, headers=headers)
