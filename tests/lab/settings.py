"""Where the lab keeps its files, and the addresses it takes."""

import os
from pathlib import Path

# Next to this file: the Go module of the tools, manifests and image recipes.
SOURCE = Path(__file__).parent
CHECKOUT = SOURCE.parents[1]

NAME = "rerank-lab"
NODE = "lab"

# One lab a machine: links, routes and cgroups have fixed names, so what is running is noted in a
# place that all checkouts and users share, and that a restart of the machine empties.
RUN = Path("/run") / NAME

# Kept between runs: tools, images and the node's image store. Safe to delete while no lab runs.
CACHE = Path(
    os.environ.get("RERANK_LAB_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / NAME
)
LOG = CACHE / "log"

LINK = "rerank0"
HOST_ADDRESS = "172.30.0.1"
NODE_ADDRESS = "172.30.0.2"
SERVICE_RANGE = "10.96.0.0/16"
POD_RANGE = "10.244.0.0/16"
API_SERVICE = "10.96.0.1"
DNS_SERVICE = "10.96.0.10"
API_URL = f"https://{NODE_ADDRESS}:6443"

PKI = RUN / "pki"
KUBECONFIG = PKI / "admin.conf"
AUDIT_LOG = LOG / "audit.log"
CONTAINERD = CACHE / "containerd"
CONTAINERD_SOCKET = RUN / "containerd.sock"
