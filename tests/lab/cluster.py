"""Start and end the lab; load images into it; talk to it as a user would."""

import contextlib
import fcntl
import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from lab import base, images, node, packages, pki, services, tools
from lab.controlplane import Commands
from lab.errors import LabError
from lab.report import run, say, step
from lab.settings import (
    API_SERVICE,
    API_URL,
    AUDIT_LOG,
    CACHE,
    CHECKOUT,
    KUBECONFIG,
    LOG,
    NODE,
    NODE_ADDRESS,
    PKI,
    RUN,
    SOURCE,
)
from lab.tools import tool

# Images that are one of the tools' binaries. The node's sandboxes use the first.
OWN_IMAGES = ("pause", "coredns", "local-path-provisioner")
DAEMONS = (
    "etcd",
    "apiserver",
    "containerd",
    "controller-manager",
    "scheduler",
    "kubelet",
    "proxy",
)


def kubectl(*words: str, stdin: str | None = None) -> str:
    """Run kubectl against the lab as its administrator."""
    return run([tool("kubectl"), f"--kubeconfig={KUBECONFIG}", *words], stdin=stdin)


def require_startable() -> None:
    """Check what takes no time and would be a pity to find out after minutes of building.

    Raises:
        LabError: no root, a program is missing, another checkout's lab runs, or the machine
            routes the cluster's addresses already.
    """
    packages.require()
    _require_ours()
    if not node.left():
        node.require_routes()


def up() -> None:
    """Start the lab, or see that it is up. Ready when its node, DNS and volumes are.

    Raises:
        LabError: it cannot be started, or a component failed; then nothing is left behind.
    """
    require_startable()
    with _lock():
        if node.running() and _healthy():
            say("the lab is up already")
            return
        if node.left():
            with step("clean up after a lab that did not end by itself"):
                node.destroy()
        with ThreadPoolExecutor() as background:
            python = background.submit(base.ensure)
            tools.build()
            python.result()
        try:
            _start()
        except BaseException:
            with step("clean up"):
                node.destroy()
            raise


def down() -> None:
    """End the lab and leave nothing behind but the cache.

    Raises:
        LabError: not root, or the lab is another checkout's.
    """
    packages.require_root()
    _require_ours()
    with _lock():
        if not node.left():
            say("no lab is running")
            return
        with step("end the lab"):
            _stop_containerd()
            node.destroy()


def _require_ours() -> None:
    found = node.running()
    if found and found.checkout != str(CHECKOUT) and Path(found.checkout).exists():
        raise LabError(
            f"a lab started from {found.checkout} is running (pid {found.pid}); "
            f"end it there first: make -C {found.checkout} lab-down"
        )


def advertise_gpus(count: int) -> None:
    """Let the node claim `count` GPUs: bookkeeping of the scheduler, no device stands behind it."""
    resources = {"nvidia.com/gpu": str(count)}
    patch = {"status": {"capacity": resources, "allocatable": resources}}
    kubectl("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def _start() -> None:
    LOG.mkdir(parents=True, exist_ok=True)
    etcd = CACHE / "etcd"
    kubelet = CACHE / "kubelet"
    for folder in (etcd, kubelet, services.VOLUMES):
        shutil.rmtree(folder, ignore_errors=True)
    AUDIT_LOG.unlink(missing_ok=True)
    plane = Commands(PKI, etcd, AUDIT_LOG, NODE_ADDRESS)
    with step("build the images of cluster DNS and volumes"):
        own = [images.of_tool(tool(name)) for name in OWN_IMAGES]
        names = {image.name: images.build(image) for image in own}
    with step("make the node: namespaces, link, routes, cgroups"):
        node.create()
        kubelet_user = (f"system:node:{NODE}", "system:nodes")
        pki.write(PKI, API_URL, _hosts(), {"kubelet": kubelet_user})
        services.configure(names["localhost/pause"])
    node.daemon("etcd", plane.etcd())
    node.daemon("apiserver", plane.apiserver())
    with step("containerd"):
        node.daemon("containerd", services.containerd())
        node.wait(_containerd_answers, 30, "containerd", ["containerd"])
        _remove_old_containers()
    for name in (*names.values(), images.PYTHON):
        images.load(name)
    with step("kube-apiserver"):
        node.wait(_apiserver_ready, 120, "kube-apiserver", ["etcd", "apiserver"])
    with step("node"):
        node.daemon("controller-manager", plane.controller_manager())
        node.daemon("scheduler", plane.scheduler())
        node.daemon("kubelet", services.kubelet(kubelet))
        node.daemon("proxy", services.proxy())
        node.wait(_node_ready, 120, "a node that is Ready", DAEMONS)
    with step("cluster DNS and volumes"):
        _apply_manifests(names)
        kubectl("wait", "deploy", "--all", "-A", "--for=condition=Available", "--timeout=120s")
    say(f"the lab is up: export KUBECONFIG={KUBECONFIG} PATH={tools.directory()}:$PATH")


def _apply_manifests(names: Mapping[str, str]) -> None:
    values = {
        "@COREDNS@": names["localhost/coredns"],
        "@PROVISIONER@": names["localhost/local-path-provisioner"],
        "@PYTHON@": images.PYTHON,
        "@VOLUMES@": str(services.VOLUMES),
    }
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "manifests"
        fill(SOURCE / "manifests", folder, values)
        module = tools.module_folder(SOURCE / "provisioner", tools.PROVISIONER[1])
        shutil.copy(Path(module) / "deploy" / "local-path-storage.yaml", folder / "volumes")
        kubectl("apply", "--server-side", "-f", str(folder / "dns.yaml"))
        kubectl("apply", "--server-side", "-k", str(folder / "volumes"))


def fill(manifests: Path, folder: Path, values: Mapping[str, str]) -> None:
    """Copy a folder of manifests to `folder`, with each @NAME@ in them replaced by its value."""
    shutil.copytree(manifests, folder)
    for file in folder.rglob("*.yaml"):
        file.write_text(re.sub("@[A-Z]+@", lambda found: values[found[0]], file.read_text()))


def _hosts() -> list[str]:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    return [*names, API_SERVICE, NODE_ADDRESS, "127.0.0.1"]


def _healthy() -> bool:
    """Tell whether every daemon runs and the node is Ready."""
    with contextlib.suppress(LabError, FileNotFoundError):
        for name in DAEMONS:
            node.check(name)
        return _node_ready()
    return False


def _containerd_answers() -> bool:
    command = node.enter([*images.CTR, "version"])
    return not subprocess.run(command, capture_output=True, check=False).returncode


def _remove_old_containers() -> None:
    """Forget containers of the node's last life: they ended with it, only their record is left."""
    listed = run(node.enter([*images.CTR, "containers", "ls", "-q"])).split()
    if listed:
        run(node.enter([*images.CTR, "containers", "rm", *listed]))


def _apiserver_ready() -> bool:
    with contextlib.suppress(LabError):
        return kubectl("get", "--raw", "/readyz") == "ok"
    return False


def _node_ready() -> bool:
    with contextlib.suppress(LabError):
        conditions = json.loads(kubectl("get", "node", NODE, "-o", "json"))["status"]["conditions"]
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return False


def _stop_containerd() -> None:
    """Let containerd close its store; all else of the node may simply be killed."""
    file = RUN / "containerd.pid"
    if not file.exists() or not node.running():
        return
    with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
        for process in psutil.Process(int(file.read_text())).children():
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One start or stop at a time, whoever asks."""
    path = Path("/run/lock") / f"{RUN.name}.lock"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError("another command is starting or ending the lab just now") from None
        yield
