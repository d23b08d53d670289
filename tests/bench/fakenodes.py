"""A control plane with all its controllers, on whose nodes kwok only says that pods run."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from apiserver.controlplane import ADMIN, ControlPlane, daemon, eventually, start_control_plane
from lab import tools
from lab.report import run, step
from lab.settings import CHECKOUT, SOURCE
from rerank_operator.cluster import api_path
from rerank_operator.names import RERANKERS

# It needs a later Kubernetes than the lab's tools, hence a Go module of its own.
FOLDER = SOURCE / "kwok"
MODULE = "sigs.k8s.io/kwok"
PACKAGES = {"kwok": f"{MODULE}/cmd/kwok"}
FLAGS = ["-ldflags=-s -w"]

PODS_PER_NODE = 110
# Controllers ask 20 times a second each by default, and the scheduler 50 times: with many objects
# that would be what is measured.
UNLIMITED = ["--kube-api-qps=1000", "--kube-api-burst=2000"]


@contextmanager
def start_cluster(pods: int) -> Iterator[ControlPlane]:
    """Run a cluster with room for so many pods while the block runs, with our CRD and the chart's
    rights.

    Nothing listens at the addresses of its pods: they are for reading only.
    """
    kwok = _build()
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        folder = Path(scratch)
        plane = stack.enter_context(start_control_plane(folder))
        for manifest in ("crd.yaml", "operator.yaml"):
            plane.apply((CHECKOUT / "manifests" / manifest).read_text())
        eventually(lambda: plane.get(api_path(RERANKERS, None)))
        stages = folder / "stages.yaml"
        # The node is ready and a pod runs at once.
        source = tools.module_folder(FOLDER, MODULE) / "kustomize" / "stage" / "fast"
        stages.write_text(run([tools.tool("kubectl"), "kustomize", source]))
        commands = plane.commands
        for name, command in (
            ("controllers", [*commands.controller_manager(), *UNLIMITED, "--secure-port=0"]),
            ("scheduler", [*commands.scheduler(), *UNLIMITED, "--secure-port=0"]),
            (
                "kwok",
                [
                    str(kwok),
                    f"--config={stages}",
                    f"--kubeconfig={plane.kubeconfig(ADMIN)}",
                    "--manage-all-nodes",
                    "--node-lease-duration-seconds=40",
                    # It would play a kubelet's server as well.
                    "--node-port=0",
                ],
            ),
        ):
            stack.enter_context(daemon(command, folder / f"{name}.log"))
        nodes = range(-(-pods // PODS_PER_NODE))
        for number in nodes:
            plane.http.post("/api/v1/nodes", json=_node(number)).raise_for_status()
        eventually(lambda: _ready_nodes(plane) == len(nodes), seconds=60)
        yield plane


def _build() -> Path:
    folder = tools.folder_of(sorted(FOLDER.glob("go.*")), (PACKAGES, FLAGS))
    if not folder.is_dir():
        with (
            step("build kwok with Go (the first time only; about 2 minutes on 2 cores)"),
            tools.replacing(folder) as scratch,
        ):
            tools.compile_packages(FOLDER, PACKAGES, scratch, FLAGS)
    return folder / "kwok"


def _node(number: int) -> dict[str, object]:
    room = {
        "cpu": "256",
        "memory": "2Ti",
        "pods": str(PODS_PER_NODE),
        "nvidia.com/gpu": str(PODS_PER_NODE),
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"fake-{number}"},
        "status": {"capacity": room, "allocatable": room},
    }


def _ready_nodes(plane: ControlPlane) -> int:
    """Count the nodes that take pods: admission marks each new one as not ready."""
    return sum(
        not node["spec"].get("taints")
        and any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in node["status"].get("conditions", [])
        )
        for node in plane.get("/api/v1/nodes")["items"]
    )
