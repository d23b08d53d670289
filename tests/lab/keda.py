"""KEDA, and the Prometheus that it may ask: built and started only when asked for."""

import re
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lab import cluster, images, node, tools
from lab.report import step
from lab.settings import SOURCE

# Name of the binary -> package. Each has a Go module of its own: KEDA needs a later Kubernetes than
# the cluster's, and a glob library whose new form Prometheus cannot use yet. All other versions are
# KEDA's in both, so that what they share is compiled once.
KEDA = "github.com/kedacore/keda/v2"
KEDA_PACKAGES = {
    "keda-operator": f"{KEDA}/cmd/operator",
    "keda-adapter": f"{KEDA}/cmd/adapter",
    "keda-webhooks": f"{KEDA}/cmd/webhooks",
}
PROMETHEUS_PACKAGES = {"prometheus": "github.com/prometheus/prometheus/cmd/prometheus"}
# Of the ways to find what to ask, the one by Kubernetes: the others' code is most of Prometheus.
PROMETHEUS_FLAGS = ["-ldflags=-s -w", "-tags=remove_all_sd,enable_kubernetes_sd"]
FOLDER = SOURCE / "autoscaling"
NAMESPACES = ("keda", "monitoring")
METRICS_API = "v1beta1.external.metrics.k8s.io"
# Where a ScaledObject finds it.
PROMETHEUS_URL = "http://prometheus.monitoring.svc:9090"


def install() -> None:
    """Have KEDA and Prometheus in the running lab, where they stay until its end.

    Returns when scaled objects are accepted and their metrics answered. Safe to repeat.

    Raises:
        LabError: no lab is running, or a build or a component failed.
    """
    node.require_running()
    build()
    binaries = [*KEDA_PACKAGES, *PROMETHEUS_PACKAGES]
    names = {name: images.build(images.of_tool(_directory() / name)) for name in binaries}
    for name in names.values():
        images.load(name)
    with step("KEDA and Prometheus"):
        _apply(names)
        available = ["--for=condition=Available", "--timeout=120s"]
        for namespace in NAMESPACES:
            cluster.kubectl("wait", "deploy", "--all", f"--namespace={namespace}", *available)
        cluster.kubectl("wait", "apiservice", METRICS_API, *available)


def build() -> None:
    """Build the binaries that are missing. The first time takes minutes, later calls nothing.

    Raises:
        LabError: Go is missing, or a build failed.
    """
    if _directory().is_dir():
        return
    with (
        step("build KEDA and Prometheus with Go (the first time only; about 8 minutes on 2 cores)"),
        tools.replacing(_directory()) as scratch,
    ):
        tools.compile_packages(FOLDER / "keda", KEDA_PACKAGES, scratch, _keda_flags())
        module = FOLDER / "prometheus"
        tools.compile_packages(module, PROMETHEUS_PACKAGES, scratch, PROMETHEUS_FLAGS)


@cache
def _directory() -> Path:
    settings = (KEDA_PACKAGES, _keda_flags(), PROMETHEUS_PACKAGES, PROMETHEUS_FLAGS)
    return tools.folder_of(sorted(FOLDER.glob("*/go.*")), settings)


def _keda_flags() -> list[str]:
    return [f"-ldflags=-s -w -X {KEDA}/version.Version={_version()}"]


def _version() -> str:
    found = re.search(rf"{KEDA} v(\S+)", (FOLDER / "keda" / "go.mod").read_text())
    assert found
    return found[1]


def _apply(names: dict[str, str]) -> None:
    """Apply KEDA's own manifests, as its module carries them, and Prometheus'."""
    values = {f"@{name.removeprefix('keda-').upper()}@": image for name, image in names.items()}
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "manifests"
        cluster.fill(FOLDER, folder, {**values, "@VERSION@": _version()})
        shutil.copytree(tools.module_folder(FOLDER / "keda", KEDA) / "config", folder / "config")
        cluster.kubectl("apply", "--server-side", "-k", str(folder))
        cluster.kubectl("apply", "--server-side", "-f", str(folder / "prometheus.yaml"))
