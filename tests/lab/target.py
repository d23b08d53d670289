"""The cluster that demo and tests use: the lab, or with LAB=existing the one of KUBECONFIG."""

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import base, cluster, images, packages, tools
from lab.errors import LabError
from lab.images import Image
from lab.report import run, step
from lab.settings import AUDIT_LOG, CHECKOUT, KUBECONFIG, SOURCE

CHART = CHECKOUT / "charts" / "rerank-operator"
RELEASE = "rerank-operator"
NAMESPACE = "rerank-system"


@dataclass(frozen=True)
class Target:
    """A cluster with the images of this checkout in reach."""

    kubectl_binary: str
    helm_binary: str
    kubeconfig: Path
    operator_image: str
    server_image: str
    audit_log: Path | None = field(default=None)

    def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it printed; a LabError carries what it complained of."""
        return run([self.kubectl_binary, f"--kubeconfig={self.kubeconfig}", *words], stdin=stdin)

    def get(self, *words: str) -> dict[str, Any]:
        """Return one object, or a list of them, as kubectl prints it in JSON."""
        found: dict[str, Any] = json.loads(self.kubectl("get", *words, "-o", "json"))
        return found

    def helm(self, *words: str) -> str:
        """Run helm and return what it printed."""
        return run([self.helm_binary, f"--kubeconfig={self.kubeconfig}", *words])

    def install(self, values: Mapping[str, str] | None = None) -> None:
        """Install the chart of this checkout, or upgrade to it, and wait until it is Available."""
        settings = {**self._images(), **(values or {})}
        self.helm(
            "upgrade",
            "--install",
            RELEASE,
            str(CHART),
            f"--namespace={NAMESPACE}",
            "--create-namespace",
            "--wait",
            "--timeout=3m",
            *(f"--set={key}={value}" for key, value in settings.items()),
        )

    def _images(self) -> dict[str, str]:
        operator, _, operator_tag = self.operator_image.rpartition(":")
        return {
            "image.repository": operator,
            "image.tag": operator_tag,
            "server.cpuImage": self.server_image,
        }


def build() -> None:
    """Build the cluster's tools and all images, the two at once; nothing that is up to date."""
    packages.require()
    with ThreadPoolExecutor() as background:
        building = background.submit(_build_images)
        tools.build()
        building.result()


def prepare() -> Target:
    """Return the target, with a lab started and images built and loaded where that is due."""
    if os.environ.get("LAB") == "existing":
        return _existing()
    cluster.require_startable()
    with ThreadPoolExecutor() as background:
        building = background.submit(_build_images)
        cluster.up()
        operator, server = building.result()
    for name in (operator, server):
        images.load(name)
    tool = tools.tool
    return Target(str(tool("kubectl")), str(tool("helm")), KUBECONFIG, operator, server, AUDIT_LOG)


def take_down(sample: Path) -> None:
    """End the lab; on another cluster delete what `sample` made, and uninstall the chart."""
    if os.environ.get("LAB") != "existing":
        cluster.down()
        return
    found = _existing()
    found.kubectl("delete", "-f", str(sample), "--ignore-not-found")
    found.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--ignore-not-found")


def _build_images() -> tuple[str, str]:
    base.ensure()
    with step("build the operator's image"):
        operator = images.build(
            Image("localhost/rerank-operator", CHECKOUT / "Dockerfile.operator", CHECKOUT)
        )
    with step("build vLLM for CPU (the first time only; minutes)"):
        vllm = images.build(
            Image("localhost/vllm-cpu", SOURCE / "images" / "vllm-cpu.Dockerfile", CHECKOUT)
        )
    with step("build the server's image"):
        server = images.build(
            Image(
                "localhost/rerank-server",
                CHECKOUT / "Dockerfile.server",
                CHECKOUT,
                (f"VLLM_BASE={vllm}",),
            )
        )
    return operator, server


def _existing() -> Target:
    names = ("KUBECONFIG", "OPERATOR_IMAGE", "SERVER_CPU_IMAGE")
    if lacking := [name for name in names if not os.environ.get(name)]:
        raise LabError(
            f"LAB=existing needs {', '.join(lacking)}: a cluster, and images that it can pull "
            "(built from Dockerfile.operator and Dockerfile.server)"
        )
    kubectl, helm = shutil.which("kubectl"), shutil.which("helm")
    if not kubectl or not helm:
        raise LabError("LAB=existing needs kubectl and helm on PATH")
    config, operator, server = (os.environ[name] for name in names)
    return Target(kubectl, helm, Path(config), operator, server)
