"""`rerank-operator doctor` against a real API server, as the operator and as its administrator."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apiserver.controlplane import ADMIN, OPERATOR, ControlPlane, eventually
from apiserver.operator_process import LEASE, SOURCE
from rerank_operator.api import Manifest

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
OPERATOR_PATH = "/apis/apps/v1/namespaces/rerank-system/deployments/rerank-operator"
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "gpu"},
}
STORAGE = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": "shared",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": "efs.csi.aws.com",
}


def doctor(plane: ControlPlane, user: str, *arguments: str, **settings: str) -> tuple[int, str]:
    """Return its exit code, and what it prints."""
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SOURCE),
        "KUBECONFIG": str(plane.kubeconfig(user)),
        **{f"RERANK_OPERATOR_{name.upper()}": text for name, text in settings.items()},
    }
    done = subprocess.run(
        [sys.executable, "-m", "rerank_operator", "doctor", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def make_crd(kind: str, group: str, version: str = "v1") -> Manifest:
    """Return the least that the API server takes for a definition of that kind."""
    plural = f"{kind.lower()}s"
    schema = {"openAPIV3Schema": {"type": "object"}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


@pytest.fixture
def furnished(own: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with an accelerator, storage, PodMonitors, and an operator that runs."""
    parts = yaml.safe_dump_all([NODE, STORAGE, make_crd("PodMonitor", "monitoring.coreos.com")])
    own.apply(parts)
    own.patch("/api/v1/nodes/gpu/status", {"status": {"allocatable": {"nvidia.com/gpu": "2"}}})
    own.patch(f"{OPERATOR_PATH}/status", {"status": {"replicas": 2, "readyReplicas": 2}})
    eventually(lambda: own.get("/apis/monitoring.coreos.com/v1"))
    yield own
    own.kubectl("delete", "-f", "-", stdin=parts)
    own.patch(f"{OPERATOR_PATH}/status", {"status": {"replicas": 0, "readyReplicas": 0}})


@pytest.fixture
def with_keda(own: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with KEDA's definitions, and nothing behind them."""
    crd = yaml.safe_dump(make_crd("ScaledObject", "keda.sh", "v1alpha1"))
    own.apply(crd)
    eventually(lambda: own.get("/apis/keda.sh/v1alpha1"))
    yield own
    own.kubectl("delete", "-f", "-", stdin=crd)


def test_cluster_that_has_everything_is_well(furnished: ControlPlane) -> None:
    code, printed = doctor(furnished, ADMIN)

    assert code == 0
    assert [line.split(":")[0] for line in printed.splitlines()] == [
        "ok    API server",
        "ok    definition",
        "ok    operator",
        "warn  KEDA",
        "ok    PodMonitor",
        "ok    accelerators",
        "ok    storage",
        "ok    storage",
        "ok    rights",
    ]
    assert "2 of nvidia.com/gpu on 1 of 1 nodes" in printed


def test_cluster_that_has_nothing_is_told_what_to_do(own: ControlPlane) -> None:
    own.kubectl("delete", "crd", "rerankerservices.rerank.dev")

    code, printed = doctor(own, ADMIN)

    assert code == 1
    for line in (
        "fail  definition: of RerankerService is missing: install the chart",
        "warn  KEDA: not installed",
        "warn  PodMonitor: not installed",
        "warn  accelerators: no node offers nvidia.com/gpu: install its device plugin",
        "warn  storage: no StorageClass",
    ):
        assert line in printed


def test_definition_of_another_version_fails(own: ControlPlane) -> None:
    schema = "/spec/versions/0/schema/openAPIV3Schema"
    patch = [{"op": "remove", "path": f"{schema}/properties/spec/properties/drainSeconds"}]
    headers = {"Content-Type": "application/json-patch+json"}
    path = f"{CRDS}/rerankerservices.rerank.dev"
    own.http.patch(path, json=patch, headers=headers).raise_for_status()

    code, printed = doctor(own, ADMIN)

    assert code == 1
    assert "fail  definition: lacks spec.drainSeconds: upgrade" in printed


def test_keda_without_its_metrics_fails(with_keda: ControlPlane) -> None:
    code, printed = doctor(with_keda, ADMIN)

    assert code == 1
    assert "fail  KEDA: its metrics API does not answer" in printed


def test_operator_itself_has_its_rights_and_no_more(furnished: ControlPlane) -> None:
    code, printed = doctor(furnished, OPERATOR, lease=LEASE)

    assert code == 0
    rights = [line for line in printed.splitlines() if line.split()[1] == "rights:"]
    assert [line.split()[0] for line in rights] == ["ok", "ok"]
    assert "warn  accelerators: not checked, since you may not read it: nodes is " in printed


def test_missing_right_fails_and_is_named(own: ControlPlane) -> None:
    own.kubectl("delete", "clusterrolebinding", "rerank-operator")
    try:
        code, printed = doctor(own, OPERATOR, "--namespace=search")
    finally:
        own.apply((Path(__file__).parents[2] / "manifests" / "operator.yaml").read_text())

    assert code == 1
    assert "fail  rights: system:serviceaccount:rerank-system:rerank-operator may not " in printed
    assert "in namespace search: upgrade the chart, or bind its role" in printed


def test_no_way_to_a_cluster_is_one_line(own: ControlPlane, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "HOME": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-m", "rerank_operator", "doctor"],
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert done.stdout.startswith("fail  API server: no way to an API server")
    assert len(done.stdout.splitlines()) == 1
