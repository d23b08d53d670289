"""A real kube-apiserver and etcd as plain processes, and the real operator beside them."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from apiserver.controlplane import ControlPlane, start_control_plane
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with our CRD, and with the operator's user bound to the chart's role."""
    with start_control_plane(tmp_path_factory.mktemp("controlplane")) as plane:
        plane.apply((ROOT / "manifests" / "crd.yaml").read_text())
        plane.apply((ROOT / "manifests" / "operator.yaml").read_text())
        plane.kubectl(
            "wait",
            "--for=condition=Established",
            "crd/rerankerservices.rerank.dev",
            "--timeout=30s",
        )
        yield plane


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane of the test's own, with the operator's rights and without our CRD."""
    with start_control_plane(tmp_path) as plane:
        plane.apply((ROOT / "manifests" / "operator.yaml").read_text())
        yield plane


@pytest.fixture
def own(bare: ControlPlane) -> ControlPlane:
    """The same with our CRD."""
    bare.apply((ROOT / "manifests" / "crd.yaml").read_text())
    established = ("--for=condition=Established", "crd/rerankerservices.rerank.dev")
    bare.kubectl("wait", *established, "--timeout=30s")
    return bare


@pytest.fixture(scope="session")
def operator(plane: ControlPlane) -> Iterator[OperatorProcess]:
    """The operator, running as the chart's service account."""
    process = OperatorProcess(plane)
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
