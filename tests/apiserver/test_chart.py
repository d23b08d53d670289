"""The chart, as helm installs it, on a control plane of its own."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apiserver.controlplane import ADMIN, OPERATOR_USER, ControlPlane, start_control_plane
from apiserver.objects import Objects
from apiserver.operator_process import LEASE, OperatorProcess
from lab.tools import tool

ROOT = Path(__file__).parents[2]
CHART = str(ROOT / "charts" / "rerank-operator")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[ControlPlane]:
    """A control plane without anything of ours."""
    with start_control_plane(tmp_path) as plane:
        yield plane


def helm(*arguments: str, plane: ControlPlane | None = None, check: bool = True) -> str:
    """Return what helm prints, on stdout or else on stderr."""
    environment = dict(os.environ)
    if plane is not None:
        environment |= {"KUBECONFIG": str(plane.kubeconfig(ADMIN)), "HOME": str(plane.folder)}
    done = subprocess.run(
        [tool("helm"), *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout or done.stderr


def install(plane: ControlPlane, *arguments: str) -> None:
    """Install the chart as its documentation says."""
    scope = ("-n", "rerank-system", "--create-namespace")
    helm("install", "rerank-operator", CHART, *scope, *arguments, plane=plane)


def kinds(*values: str) -> list[str]:
    settings = [part for value in values for part in ("--set", value)]
    rendered = yaml.safe_load_all(helm("template", "test", CHART, *settings))
    return sorted(manifest["kind"] for manifest in rendered if manifest)


def test_manifest_is_the_chart_with_default_values() -> None:
    manifests = list(yaml.safe_load_all((ROOT / "manifests" / "operator.yaml").read_text()))

    rendered = helm(
        "template",
        "rerank-operator",
        CHART,
        "--namespace=rerank-system",
        "--set=crd.install=false",
    )

    assert manifests[1:] == list(yaml.safe_load_all(rendered))


def test_named_namespaces_give_roles_there_and_none_for_the_cluster() -> None:
    assert kinds("watchNamespaces={search,rag}", "crd.install=false") == [
        "Deployment",
        "PodDisruptionBudget",
        # Two, and that of the Lease in the operator's own namespace.
        *["Role"] * 3,
        *["RoleBinding"] * 3,
        "ServiceAccount",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "serverImage=x",
        "logLevel=LOUD",
        "crd=1",
        "imagePullSecrets[0].name=x",
        "watchNamespaces[0].name=x",
        "tolerations={x}",
    ],
)
def test_mistyped_value_fails_at_once(value: str) -> None:
    answer = helm("template", "test", CHART, "--set", value, check=False)

    assert "Error" in answer


def test_uninstall_keeps_the_definition_and_all_objects(empty: ControlPlane) -> None:
    install(empty)
    empty.apply((ROOT / "manifests" / "samples" / "demo.yaml").read_text(), "default")

    helm("uninstall", "rerank-operator", "-n", "rerank-system", plane=empty)

    assert "demo" in empty.kubectl("get", "rrs", "-n", "default")
    assert "NotFound" in empty.kubectl(
        "get", "deployment", "rerank-operator", "-n", "rerank-system", check=False
    )
    install(empty)


def test_roles_of_a_namespace_are_all_that_its_operator_needs(empty: ControlPlane) -> None:
    empty.kubectl("create", "namespace", "search")
    install(empty, "--set", "watchNamespaces={search}")
    operator = OperatorProcess(empty, "--namespace=search", lease=LEASE)
    operator.start()
    try:
        Objects(empty, "search").create()
    finally:
        operator.stop()

    calls = [entry for entry in empty.calls(OPERATOR_USER) if "objectRef" in entry]
    assert {entry["annotations"]["authorization.k8s.io/decision"] for entry in calls} == {"allow"}
    elsewhere = [entry for entry in calls if entry["objectRef"].get("namespace") != "search"]
    assert {entry["objectRef"]["resource"] for entry in elsewhere} == {"leases"}
    assert {entry["objectRef"]["namespace"] for entry in elsewhere} == {"rerank-system"}
