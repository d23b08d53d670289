"""What is on a machine as long as a lab runs on it, and must not be there after."""

import os
import subprocess
from pathlib import Path

import psutil

from lab.settings import CACHE, LINK, NAME, POD_RANGE, RUN, SERVICE_RANGE


def leftovers() -> list[str]:
    """Return routes, cgroups, processes, mounts, links and files of a lab, in words."""
    routes = [
        f"route to {target}"
        for target in (SERVICE_RANGE, POD_RANGE)
        if subprocess.run(
            ["ip", "route", "show", target], capture_output=True, text=True, check=True
        ).stdout
    ]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").rglob(f"{NAME}*")]
    # Command lines of what a node runs name the lab's folders.
    processes = [
        f"process {process.pid}: {process.name()}"
        for process in psutil.process_iter()
        if _is_of_a_node(process)
    ]
    mounts = [
        line for line in Path("/proc/mounts").read_text().splitlines() if str(CACHE / "k") in line
    ]
    links = [LINK] if Path(f"/sys/class/net/{LINK}").exists() else []
    state = [str(RUN)] if RUN.exists() else []
    return [*routes, *cgroups, *processes, *mounts, *links, *state]


def _is_of_a_node(process: psutil.Process) -> bool:
    try:
        words = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return process.pid != os.getpid() and str(RUN) in words
