"""What vLLM and its processes read from the environment; only what nobody has set."""

import json
import os
import tempfile
from pathlib import Path

from rerank_server.logs import logging_config

DEFAULTS = {
    # No message home about the machine and the model.
    "VLLM_NO_USAGE_STATS": "1",
    # A fork would inherit our listening socket, and threads that no longer run.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    # GiB. The default is a share of the machine's memory, whatever the pod's limit is.
    "VLLM_CPU_KVCACHE_SPACE": "1",
    # Binding threads to cores takes those of other pods as soon as CPU is shared.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # The model is on disk by now; without a network each look-up would wait for a timeout.
    "HF_HUB_OFFLINE": "1",
}


def prepare_environment(log_level: str, log_dir: Path | None) -> None:
    """Set defaults for vLLM; has to run before it is imported.

    The environment is the only way to reach the processes that vLLM starts.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if "VLLM_LOGGING_CONFIG_PATH" not in os.environ:
        with tempfile.NamedTemporaryFile("w", suffix=".json", delete=False) as file:
            json.dump(logging_config(log_level, log_dir, rotate=False), file)
        os.environ["VLLM_LOGGING_CONFIG_PATH"] = file.name


def usable_cores(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores this process may keep busy: affinity, and the limit of its pod.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html, `cpu.max`; in version 1
    `cpu.cfs_quota_us` and `cpu.cfs_period_us`, where -1 is no limit.
    """
    cores = len(os.sched_getaffinity(0))
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / file).read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        if quota.isdigit():
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores
