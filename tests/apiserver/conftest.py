"""A real kube-apiserver and etcd as plain processes, and the real operator beside them."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from apiserver.controlplane import ControlPlane, eventually, start_control_plane
from apiserver.objects import Objects
from apiserver.operator_process import LEASE, OperatorProcess
from apiserver.proxy import Proxy, start_proxy
from lab import keda, tools

ROOT = Path(__file__).parents[2]
POD_MONITORS = Path(__file__).parent / "podmonitors.yaml"
# KEDA's own, as its release has it.
SCALED_OBJECTS = (
    tools.module_folder(keda.FOLDER / "keda", keda.KEDA)
    / "config/crd/bases/keda.sh_scaledobjects.yaml"
)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with our CRD, and with the operator's user bound to the chart's role."""
    with start_control_plane(tmp_path_factory.mktemp("controlplane")) as plane:
        _install(plane)
        yield plane


@pytest.fixture(scope="session")
def unattended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The same, without any operator but those that a test starts and ends."""
    with start_control_plane(tmp_path_factory.mktemp("unattended")) as plane:
        _install(plane)
        yield plane


def _install(plane: ControlPlane) -> None:
    plane.apply((ROOT / "manifests" / "crd.yaml").read_text())
    plane.apply((ROOT / "manifests" / "operator.yaml").read_text())
    plane.apply(POD_MONITORS.read_text())
    plane.apply(SCALED_OBJECTS.read_text())
    plane.kubectl(
        "wait",
        "--for=condition=Established",
        "crd/rerankerservices.rerank.dev",
        "crd/podmonitors.monitoring.coreos.com",
        "crd/scaledobjects.keda.sh",
        "--timeout=30s",
    )


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of the test's own, with the operator's rights and without our CRD."""
    with start_control_plane(tmp_path) as plane:
        plane.apply((ROOT / "manifests" / "operator.yaml").read_text())
        yield plane


@pytest.fixture(scope="session")
def frail(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for tests that stop it; `own` is how to have it."""
    with start_control_plane(tmp_path_factory.mktemp("frail")) as plane:
        plane.apply((ROOT / "manifests" / "operator.yaml").read_text())
        yield plane


@pytest.fixture
def own(frail: ControlPlane) -> ControlPlane:
    """A control plane that the test may stop, starve and empty, with our CRD and no operator."""
    frail.start_etcd()
    frail.start()
    frail.apply((ROOT / "manifests" / "crd.yaml").read_text())
    established = ("--for=condition=Established", "crd/rerankerservices.rerank.dev")
    frail.kubectl("wait", *established, "--timeout=30s")
    frail.kubectl("delete", "leases", "--all", "-n", "rerank-system")
    return frail


@pytest.fixture
def wire(own: ControlPlane) -> Iterator[Proxy]:
    """The connections of the operators of `pair`, and of nobody else."""
    with start_proxy(own) as proxy:
        yield proxy


@pytest.fixture
def pair(own: ControlPlane, wire: Proxy) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """Two operators; the first leads, the second stands by and is ready."""
    leader, other = (
        OperatorProcess(own, kubeconfig=wire.kubeconfig, lease=LEASE) for _ in range(2)
    )
    try:
        leader.start()
        eventually(leader.leads)
        other.start()
        yield leader, other
    finally:
        for operator in (leader, other):
            operator.stop()


@pytest.fixture
def served(own: ControlPlane, pair: tuple[OperatorProcess, OperatorProcess]) -> Objects:
    """A RerankerService with all its children, under `pair`."""
    name = f"test-{uuid4().hex[:8]}"
    own.kubectl("create", "namespace", name)
    served = Objects(own, name)
    served.create()
    return served


@pytest.fixture(scope="session")
def operator(plane: ControlPlane) -> Iterator[OperatorProcess]:
    """The operator, running as the chart's service account."""
    process = OperatorProcess(plane, lease=LEASE)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    """A namespace of the test's own. No controller runs that could delete it."""
    name = f"test-{uuid4().hex[:8]}"
    plane.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def demo(plane: ControlPlane, operator: OperatorProcess, namespace: str) -> Objects:
    """A RerankerService that is yet to be created, under a running operator."""
    return Objects(plane, namespace)
