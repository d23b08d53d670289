"""The programs of the cluster, built once from pinned Go modules and kept by hash."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from lab.errors import LabError
from lab.report import run, step
from lab.settings import CACHE, LOG, SOURCE

# Name of the binary -> package; those outside this module are the `tool` lines of its go.mod.
KUBERNETES = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
]
PACKAGES = {
    **{name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES},
    "etcd": "go.etcd.io/etcd/server/v3",
    "helm": "helm.sh/helm/v4/cmd/helm",
    "coredns": "./cmd/coredns",
    "pause": "./cmd/pause",
}
# local-path-provisioner spells a package of its own in capitals, which cannot be linked together
# with the tools above: it has a module of its own, pinned to the same Kubernetes.
PROVISIONER = ("local-path-provisioner", "github.com/rancher/local-path-provisioner")

# Without cgo the binaries need no libc, so their images are FROM scratch; and one setting for all
# of them means that shared packages are compiled once.
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false"}
# Without a version of its own a cluster calls itself v0.0.0, and Helm refuses charts for it.
STAMP = "k8s.io/component-base/version"


def _flags() -> list[str]:
    (version,) = re.findall(r"k8s.io/kubernetes (v\S+)", (SOURCE / "go.mod").read_text())
    major, minor, _ = version.removeprefix("v").split(".")
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return ["-ldflags=-s -w " + " ".join(f"-X {STAMP}.{k}={v}" for k, v in values.items())]


@cache
def directory() -> Path:
    """Return the folder of the binaries, named after the hash of all they are built from."""
    parts = sorted(
        path
        for pattern in ("go.mod", "go.sum", "cmd/*/*.go", "provisioner/go.*")
        for path in SOURCE.glob(pattern)
    )
    return folder_of(parts, (PACKAGES, PROVISIONER, _flags()))


def folder_of(parts: Sequence[Path], settings: object) -> Path:
    """Return where binaries built from the files `parts` with `settings` are kept."""
    text = "".join(f"{path.relative_to(SOURCE)}\n{path.read_text()}\n" for path in parts)
    text += repr(settings)
    return CACHE / "tools" / hashlib.sha256(text.encode()).hexdigest()[:16]


def tool(name: str) -> Path:
    """Return the path of a built binary, building all of them first where that is due."""
    build()
    return directory() / name


def build() -> None:
    """Build what is missing. The first time takes minutes, later calls nothing.

    Raises:
        LabError: Go is missing, or a build failed.
    """
    if directory().is_dir():
        return
    name, package = PROVISIONER
    with (
        step("build the cluster's tools with Go (the first time only; about 7 minutes on 2 cores)"),
        replacing(directory()) as scratch,
    ):
        compile_packages(SOURCE, PACKAGES, scratch, _flags())
        compile_packages(SOURCE / "provisioner", {name: package}, scratch, _flags())


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `target` when nothing failed."""
    scratch = target.with_suffix(".partial")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    yield scratch
    scratch.rename(target)


def compile_packages(
    module: Path, packages: Mapping[str, str], folder: Path, flags: Sequence[str]
) -> None:
    """Build `packages`, by the names of their binaries, as pinned by the Go module in `module`.

    Raises:
        LabError: Go is missing, or the build failed.
    """
    if not shutil.which("go"):
        raise LabError("Go is missing: install Go 1.26 or later and try again")
    run(
        ["go", "build", *flags, "-o", f"{folder}/", *packages.values()],
        env={**os.environ, **ENVIRONMENT},
        cwd=module,
        log=LOG / f"go-build-{module.name}.log",
    )
    for name, package in packages.items():
        # Go names a binary after the last part of its package's path that is no version.
        built = re.sub(r"/v\d+$", "", package).rpartition("/")[2]
        (folder / built).rename(folder / name)


def module_folder(module: Path, name: str) -> Path:
    """Return where the sources of the Go module `name` lie, as pinned by the module in `module`."""
    return Path(json.loads(run(["go", "mod", "download", "-json", name], cwd=module))["Dir"])
