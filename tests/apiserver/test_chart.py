"""The chart, as helm installs it, on a control plane of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from apiserver.controlplane import (
    ADMIN,
    ControlPlane,
    eventually,
    start_control_plane,
)
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


def make_earlier_chart(folder: Path) -> str:
    """Return a chart as one before this was: one pod, no Lease, and a field less."""
    chart = folder / "rerank-operator"
    shutil.copytree(CHART, chart)
    templates = chart / "templates"
    for name in ("role-lease", "rolebinding-lease", "poddisruptionbudget", "podmonitor"):
        (templates / f"{name}.yaml").unlink()
    first, *lines, last = (templates / "crd.yaml").read_text().splitlines(keepends=True)
    crd = yaml.safe_load("".join(lines))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    del schema["properties"]["spec"]["properties"]["drainSeconds"]
    (templates / "crd.yaml").write_text(first + yaml.safe_dump(crd) + last)
    deployment = templates / "deployment.yaml"
    text = deployment.read_text()
    one = "replicas: 1\n  strategy: {type: Recreate}"
    deployment.write_text(text.replace("replicas: {{ .Values.replicas }}", one))
    about = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about | {"version": "0.0.1"}))
    return str(chart)


def test_upgrade_brings_the_definition_along_and_keeps_all_objects(
    own: ControlPlane, tmp_path: Path
) -> None:
    namespace, crd = "upgraded", "rerankerservices.rerank.dev"
    scope = ("-n", namespace, "--create-namespace")
    own.kubectl("delete", "crd", crd)
    helm("install", "upgraded", make_earlier_chart(tmp_path), *scope, plane=own)
    own.kubectl("wait", "--for=condition=Established", f"crd/{crd}", "--timeout=30s")
    own.apply((ROOT / "manifests" / "samples" / "demo.yaml").read_text(), namespace)
    demo = Objects(own, namespace)
    before = demo.get()
    assert "drainSeconds" not in before["spec"]

    helm("upgrade", "upgraded", CHART, "-n", namespace, plane=own)

    eventually(lambda: "drainSeconds" in demo.get()["spec"])
    after = demo.get()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["drainSeconds"] == 60
    name = "upgraded-rerank-operator"
    spec = own.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (2, "RollingUpdate")
    helm("uninstall", "upgraded", "-n", namespace, plane=own)


def test_values_reach_the_pods() -> None:
    settings = "imagePullSecrets={registry},priorityClassName=high,replicas=3,image.tag=1.2.3"

    rendered = yaml.safe_load_all(helm("template", "test", CHART, "--set", settings))

    spec = next(manifest for manifest in rendered if manifest["kind"] == "Deployment")["spec"]
    pod = spec["template"]["spec"]
    assert spec["replicas"] == 3
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["priorityClassName"] == "high"
    assert pod["containers"][0]["image"].endswith(":1.2.3")


def test_pods_of_a_release_share_a_lease_that_their_role_is_about() -> None:
    manifests = list(yaml.safe_load_all(helm("template", "test", CHART, "--namespace=here")))

    kinds = {manifest["kind"]: manifest for manifest in manifests}
    (container,) = kinds["Deployment"]["spec"]["template"]["spec"]["containers"]
    lease = {"name": "RERANK_OPERATOR_LEASE", "value": "here/test-rerank-operator"}
    assert lease in container["env"]
    assert kinds["Role"]["metadata"]["namespace"] == "here"
    assert kinds["Role"]["rules"][0]["resourceNames"] == ["test-rerank-operator"]


def test_pod_monitor_is_made_when_asked_for() -> None:
    wanted = ("podMonitor.enabled=true", "podMonitor.labels.release=prometheus")

    settings = [part for value in wanted for part in ("--set", value)]
    manifests = list(yaml.safe_load_all(helm("template", "test", CHART, *settings)))

    (monitor,) = [manifest for manifest in manifests if manifest["kind"] == "PodMonitor"]
    (deployment,) = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"] == deployment["spec"]["selector"]
    assert {"name": "metrics", "containerPort": 8081} in container["ports"]
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics"}]


def test_roles_of_a_namespace_are_all_that_its_operator_needs(empty: ControlPlane) -> None:
    empty.kubectl("create", "namespace", "search")
    install(empty, "--set", "watchNamespaces={search}")
    operator = OperatorProcess(empty, "--namespace=search", lease=LEASE)
    operator.start()
    try:
        Objects(empty, "search").create()
    finally:
        operator.stop()

    calls = [entry for entry in empty.calls() if "objectRef" in entry]
    assert {entry["annotations"]["authorization.k8s.io/decision"] for entry in calls} == {"allow"}
    elsewhere = [entry for entry in calls if entry["objectRef"].get("namespace") != "search"]
    assert {entry["objectRef"]["resource"] for entry in elsewhere} == {"leases"}
    assert {entry["objectRef"]["namespace"] for entry in elsewhere} == {"rerank-system"}


def test_namespace_without_a_role_keeps_no_other_from_being_looked_after(
    empty: ControlPlane,
) -> None:
    empty.kubectl("create", "namespace", "search")
    install(empty, "--set", "watchNamespaces={search}")
    # As after its deletion.
    operator = OperatorProcess(empty, lease=LEASE, namespaces="gone,search")
    operator.launch()
    try:
        Objects(empty, "search").create()
        obstacle = operator.probe("readyz")
    finally:
        operator.stop()

    assert obstacle.status_code == 503
    assert "/namespaces/gone/" in obstacle.text
