"""Kinds that a cluster may lack, on a control plane of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.conftest import POD_MONITORS, ROOT
from apiserver.controlplane import ControlPlane, eventually, start_control_plane
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess


@pytest.fixture
def lean(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane without the Prometheus operator's kinds."""
    with start_control_plane(tmp_path) as plane:
        for name in ("crd", "operator"):
            plane.apply((ROOT / "manifests" / f"{name}.yaml").read_text())
        yield plane


def test_missing_pod_monitor_kind_is_told_and_used_once_it_is_there(lean: ControlPlane) -> None:
    operator = OperatorProcess(lean)
    demo = Objects(lean, "default")
    operator.start()
    try:
        demo.create(monitoring={"podMonitor": True})
        missing = eventually(lambda: demo.condition("Monitored"))
        deployment = demo.child("Deployment")
        lean.apply(POD_MONITORS.read_text())

        eventually(lambda: demo.child("PodMonitor"), 90)
        eventually(lambda: demo.condition("Monitored")["status"] == "True")
        assert (missing["status"], missing["reason"]) == ("False", "PodMonitorMissing")
        assert deployment

        lean.kubectl("delete", "crd", "podmonitors.monitoring.coreos.com", "--wait=false")
        eventually(lambda: not demo.child("PodMonitor"))
        lean.patch(demo.path, {"spec": {"monitoring": {"podMonitor": False}}})
        eventually(lambda: not demo.condition("Monitored"))
        assert operator.running()
    finally:
        operator.stop()
