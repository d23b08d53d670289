"""The machine that the cluster believes to be alone on: namespaces, a link, routes, cgroups.

Everything of the node is a descendant of one process, the init of a PID namespace. When it ends,
the kernel ends the rest, and with them go mounts, addresses, packet rules and the link: whatever
killed the lab, there is little to clean up.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.errors import LabError
from lab.report import run, tail
from lab.settings import (
    CACHE,
    CHECKOUT,
    HOST_ADDRESS,
    LINK,
    LOG,
    NAME,
    NODE_ADDRESS,
    POD_RANGE,
    RUN,
    SERVICE_RANGE,
)
from lab.tools import tool

CGROUPS = Path("/sys/fs/cgroup")
# Which checkout's lab it is; written before anything is made, so that all of it can be found.
CHECKOUT_NOTE = RUN / "checkout"


@dataclass(frozen=True)
class Lab:
    """A running lab: the first process of its node, and the checkout that started it."""

    pid: int
    checkout: str


def left() -> bool:
    """Tell whether anything is left of a lab, running or not."""
    return RUN.exists()


def running() -> Lab | None:
    """Return the running lab, if there is one."""
    holder = _process("node")
    children = holder.children() if holder else []
    return Lab(children[0].pid, CHECKOUT_NOTE.read_text()) if children else None


def require_running() -> Lab:
    """Return the running lab, or raise a LabError that tells how to start one."""
    found = running()
    if not found:
        raise LabError("no lab is running; start one with `make lab-up`")
    return found


def create() -> None:
    """Make the node: namespaces, link, routes and cgroups; no process of Kubernetes yet."""
    RUN.mkdir(parents=True, exist_ok=True)
    CHECKOUT_NOTE.write_text(str(CHECKOUT))
    _guard_routes()
    _detach("node", [*_UNSHARE, "bash", "-c", _INSIDE, "-", str(tool("pause"))])
    wait(lambda: running() is not None, 10, "the node's namespaces")
    found = running()
    assert found
    init = psutil.Process(found.pid)
    wait(lambda: init.name() == "pause", 10, "the node's first process")
    _connect(init.pid)
    for folder in _cgroup_roots():
        folder.mkdir(exist_ok=True)
    _fill_cpuset()


_UNSHARE = [
    "unshare",
    "--net",
    "--mount",
    "--pid",
    "--fork",
    "--kill-child",
    "--propagation=private",
]

# What kubelet, containerd and network plugins write to places of their own goes to memory and ends
# with the node; RUN and CACHE are put back where that hid them. Mounts of pods must propagate
# inside the node, and nowhere else.
_INSIDE = f"""
set -e
exec 3< {RUN} 4< {CACHE}
for folder in /run /var/lib /var/log; do mount -t tmpfs lab $folder; done
mkdir -p {RUN} {CACHE} /run/netns
# Not canonical: as a path, what the descriptor is open on is the empty folder by now.
mount --no-canonicalize --bind /proc/self/fd/3 {RUN}
mount --no-canonicalize --bind /proc/self/fd/4 {CACHE}
exec 3<&- 4<&-
mount --make-rshared /
mount -t proc proc /proc
exec "$1"
"""


def enter(command: Sequence[str | Path]) -> list[str]:
    """Return the command line that runs `command` inside the node."""
    pid = require_running().pid
    target = ["nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--wd=/", "--"]
    return [*target, *(str(word) for word in command)]


def daemon(name: str, command: Sequence[str]) -> None:
    """Start a program of the node in the background; its output goes to a log of that name."""
    _detach(name, enter(command))


def check(name: str) -> None:
    """Raise a LabError with the end of its log when the daemon `name` has ended."""
    if not _process(name):
        log = LOG / f"{name}.log"
        raise LabError(f"{name} ended; the end of {log}:\n{tail(log)}")


def _process(name: str) -> psutil.Process | None:
    """Return the process of a daemon, if it runs."""
    file = RUN / f"{name}.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, psutil.NoSuchProcess):
        process = psutil.Process(int(file.read_text()))
        # One that began after its number was noted has only inherited the number. The kernel
        # counts from a boot time that psutil knows to the second.
        ours = process.create_time() < file.stat().st_mtime + 2
        if ours and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _detach(name: str, command: Sequence[str]) -> None:
    """Start a program that outlives this one."""
    file = RUN / f"{name}.pid"
    file.unlink(missing_ok=True)
    note = ["setsid", "--fork", "sh", "-c", f'echo $$ > {file}; exec "$@"', "-"]
    with (LOG / f"{name}.log").open("w") as log:
        subprocess.run(
            [*note, *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    wait(lambda: file.exists() and bool(file.read_text().strip()), 10, f"the start of {name}")


def wait(
    done: Callable[[], bool], seconds: float, what: str, components: Sequence[str] = ()
) -> None:
    """Wait until `done`, at most `seconds`.

    Raises:
        LabError: it took too long, or one of `components` ended meanwhile.
    """
    deadline = time.monotonic() + seconds
    while not done():
        for name in components:
            check(name)
        if time.monotonic() > deadline:
            logs = "\n".join(f"  {name}:\n{tail(LOG / f'{name}.log', 8)}" for name in components)
            raise LabError(f"{what}: not there after {seconds:.0f} s\n{logs}")
        time.sleep(0.1)


def destroy() -> None:
    """End the node and remove what it leaves on the machine. Safe to repeat."""
    if holder := _process("node"):
        # Its child is the node's first process, whose end is the end of all others.
        processes = [holder, *holder.children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=20)
    # The link goes with the node's network, only a little later.
    subprocess.run(["ip", "link", "del", LINK], capture_output=True, check=False)
    _remove_cgroups()
    for target in (SERVICE_RANGE, POD_RANGE):
        subprocess.run(
            ["ip", "route", "del", "unreachable", target], capture_output=True, check=False
        )
    shutil.rmtree(RUN, ignore_errors=True)


def require_routes() -> None:
    """Raise a LabError when this machine has another use for the cluster's addresses."""
    for target in (SERVICE_RANGE, POD_RANGE):
        taken = [
            line
            for line in run(["ip", "route", "show", target]).splitlines()
            if not line.startswith("unreachable")
        ]
        if taken:
            raise LabError(f"this machine routes {target} already ({taken[0].strip()}); free it")


def _guard_routes() -> None:
    """Refuse the cluster's addresses on this machine while its own link is not there.

    Without this, a request to an address of the cluster would leave by the default route.
    """
    require_routes()
    for target in (SERVICE_RANGE, POD_RANGE):
        run(["ip", "route", "replace", "unreachable", target, "metric", "4096"])


def _connect(pid: int) -> None:
    if Path(f"/sys/class/net/{LINK}").exists():
        run(["ip", "link", "del", LINK])
    run(["ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    run(["ip", "address", "add", f"{HOST_ADDRESS}/30", "dev", LINK])
    run(["ip", "link", "set", LINK, "up"])
    for target in (SERVICE_RANGE, POD_RANGE):
        run(["ip", "route", "add", target, "via", NODE_ADDRESS, "dev", LINK])
    inside = [
        "ip link set lo up",
        f"ip address add {NODE_ADDRESS}/30 dev eth0",
        "ip link set eth0 up",
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1",
        # Programs of the node itself reach Services: the packet needs some route before
        # kube-proxy's rules rewrite it. What no rule rewrote is refused rather than sent on.
        f"ip route add {SERVICE_RANGE} via {HOST_ADDRESS} dev eth0",
        f"iptables -A OUTPUT -d {SERVICE_RANGE} -j REJECT",
        f"iptables -A FORWARD -d {SERVICE_RANGE} -j REJECT",
    ]
    run(enter(["sh", "-ec", "\n".join(inside)]))


def _cgroup_roots() -> Iterator[Path]:
    """The node's folder in every hierarchy: one with cgroup v2, one a controller with v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        yield CGROUPS / NAME
        return
    for hierarchy in CGROUPS.iterdir():
        if hierarchy.is_dir() and not hierarchy.is_symlink():
            yield hierarchy / NAME


def _fill_cpuset() -> None:
    for folder in _cgroup_roots():
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (folder / file).exists() and not (folder / file).read_text().strip():
                (folder / file).write_text((folder.parent / file).read_text())


def _remove_cgroups() -> None:
    def empty() -> bool:
        for root in _cgroup_roots():
            folders = [root, *root.rglob("*")] if root.exists() else []
            for folder in reversed([f for f in folders if f.is_dir()]):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return not any(root.exists() for root in _cgroup_roots())

    wait(empty, 15, f"the end of the cgroups called {NAME}")
