"""An API server that is not there, or not complete, on a control plane of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.controlplane import ControlPlane, eventually, start_control_plane
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane with the operator's rights and without the CustomResourceDefinition."""
    with start_control_plane(tmp_path) as plane:
        plane.apply((MANIFESTS / "operator.yaml").read_text())
        yield plane


def test_operator_outlives_a_late_definition_and_an_absent_server(bare: ControlPlane) -> None:
    operator = OperatorProcess(bare)
    demo = Objects(bare, "default")
    operator.launch()
    try:
        eventually(lambda: any(r["message"] == "cannot list" for r in operator.records()), 60)
        bare.apply((MANIFESTS / "crd.yaml").read_text())
        operator.wait()
        demo.create()

        bare.stop()
        eventually(lambda: any("will retry" in r["message"] for r in operator.records()), 60)
        bare.start()
        bare.patch(demo.path, {"spec": {"replicas": 2}})

        eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2, 60)
        assert operator.running()
    finally:
        operator.stop()
