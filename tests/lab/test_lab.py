"""The lab starts on a clean machine, says what is wrong, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lab import cluster, images, node, services, tools
from lab.leftovers import leftovers
from lab.settings import CACHE, LINK, PKI, RUN, SOURCE

CLAIM = f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: claim}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: writer}}
spec:
  restartPolicy: Never
  securityContext: {{runAsUser: 1000, fsGroup: 1000}}
  containers:
    - name: writer
      image: {images.PYTHON}
      imagePullPolicy: IfNotPresent
      command: [sh, -c, "echo kept > /data/file && cat /data/file"]
      volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
    - name: data
      persistentVolumeClaim: {{claimName: claim}}
"""


@pytest.fixture(autouse=True)
def nothing_runs() -> Iterator[None]:
    """These tests start and end the lab themselves."""
    if node.running():
        pytest.fail("a lab is running: `make lab-down` first")
    yield
    cluster.down()


def lab_up(*prefix: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `lab up` as a command of its own."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "lab", "up"],
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_start_is_idempotent_and_end_leaves_nothing() -> None:
    cluster.up()
    first = node.running()
    cluster.up()

    assert node.running() == first
    assert leftovers()

    cluster.down()
    assert leftovers() == []


def test_volume_is_made_when_a_pod_wants_it_and_goes_with_its_claim() -> None:
    cluster.up()
    cluster.kubectl("apply", "-f", "-", stdin=CLAIM)

    cluster.kubectl("wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded")
    assert len(list(services.VOLUMES.iterdir())) == 1

    cluster.kubectl("delete", "pod/writer", "pvc/claim")
    node.wait(lambda: not list(services.VOLUMES.iterdir()), 30, "the end of the volume's folder")


def test_no_packet_for_the_cluster_leaves_the_machine_when_the_node_is_gone() -> None:
    cluster.up()
    found = node.running()
    assert found

    os.kill(found.pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(found.pid)], timeout=10)
    node.wait(lambda: not Path(f"/sys/class/net/{LINK}").exists(), 10, "the end of the link")

    lookup = subprocess.run(["ip", "route", "get", "10.96.0.1"], capture_output=True, check=False)
    assert lookup.returncode == 2  # unreachable


def test_start_cleans_up_after_a_start_that_was_killed() -> None:
    command = [sys.executable, "-m", "lab", "up"]
    starting = psutil.Popen(
        command, env={**os.environ, "PYTHONPATH": str(SOURCE.parent)}, stdout=subprocess.DEVNULL
    )
    node.wait(lambda: (RUN / "node.pid").exists(), 60, "the beginnings of a node")
    starting.kill()
    starting.wait()

    cluster.up()
    cluster.down()

    assert leftovers() == []


def test_only_root_may_read_the_keys_of_the_cluster() -> None:
    cluster.up()

    assert PKI.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("victim", ["node", "apiserver"])
def test_start_cleans_up_after_a_lab_that_was_killed(victim: str) -> None:
    cluster.up()
    before = node.running()
    process = psutil.Process(int((RUN / f"{victim}.pid").read_text()))
    process.kill()
    process.wait(timeout=10)

    cluster.up()

    assert node.running() not in (None, before)


def test_second_lab_from_another_checkout_is_told_about_the_first(tmp_path: Path) -> None:
    cluster.up()
    shutil.copytree(SOURCE, tmp_path / "tests" / "lab")

    second = lab_up(PYTHONPATH=str(tmp_path / "tests"))

    assert second.returncode == 1
    assert "is running" in second.stderr
    assert "lab-down" in second.stderr


def test_failed_start_names_the_component_shows_its_log_and_cleans_up(tmp_path: Path) -> None:
    # The same cache, but for an etcd that ends at once.
    for entry in CACHE.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "tools").unlink()
    broken = tmp_path / "tools" / tools.directory().name
    shutil.copytree(tools.directory(), broken)
    (broken / "etcd").unlink()
    (broken / "etcd").write_text("#!/bin/sh\necho the disk is on fire\nexit 1\n")
    (broken / "etcd").chmod(0o755)

    started = lab_up(RERANK_LAB_CACHE=str(tmp_path))

    assert started.returncode == 1
    assert "etcd ended" in started.stderr
    assert "the disk is on fire" in started.stderr
    assert leftovers() == []


def test_without_root_it_says_so_at_once() -> None:
    nobody = ["setpriv", "--reuid=65534", "--clear-groups"]

    started = lab_up(*nobody, HOME="/nonexistent")

    assert started.returncode == 1
    assert "needs root" in started.stderr
    assert "Traceback" not in started.stderr
