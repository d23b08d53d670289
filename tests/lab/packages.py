"""Programs of the distribution that lab and tests need: say what is missing, or install it."""

import ctypes.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.report import run, step
from lab.settings import LOG

# Program, file or shared library (vLLM's CPU build opens one) -> Debian package.
NEEDED = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "buildah": "buildah",
    "skopeo": "skopeo",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ethtool": "ethtool",
    "socat": "socat",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "libnuma.so.1": "libnuma1",
}
# What `make test-browser` needs, and no lab does.
BROWSER = {"chromium": "chromium", "chromedriver": "chromium-driver"}
# Daemons of the system live where a user's PATH often does not look.
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing(needed: Mapping[str, str] = NEEDED) -> list[str]:
    """Return the Debian packages that this machine lacks."""
    lacking = {package for program, package in needed.items() if not _present(program)}
    return sorted(lacking)


def _present(program: str) -> bool:
    if "/" in program:
        return Path(program).exists()
    if ".so." in program:
        return ctypes.util.find_library(program.removeprefix("lib").partition(".")[0]) is not None
    return shutil.which(program, path=PATH) is not None


def require_root() -> None:
    """Raise a LabError unless this is root."""
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes network namespaces, mounts and cgroups")


def require() -> None:
    """Raise a LabError that names what is missing on this machine and how to get it."""
    require_root()
    if not shutil.which("go"):
        raise LabError("Go is missing: install Go 1.26 or later and try again")
    if lacking := missing():
        raise LabError(f"missing packages: {' '.join(lacking)}; `make packages` installs them")


def install(needed: Mapping[str, str] = NEEDED) -> None:
    """Install what is missing with apt-get.

    Raises:
        LabError: not root, or no apt-get here.
    """
    lacking = missing(needed)
    if not lacking:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise LabError(f"install these packages first (their names on Debian): {' '.join(lacking)}")
    with step(f"install Debian packages: {' '.join(lacking)}"):
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "update", "-qq"], env=env, log=LOG / "apt.log")
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking]
        run(command, env=env, log=LOG / "apt.log")
