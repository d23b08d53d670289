"""What runs on the node beside the control plane: containerd, kubelet, kube-proxy."""

import json
from pathlib import Path

from lab.settings import (
    CACHE,
    CONTAINERD,
    CONTAINERD_SOCKET,
    DNS_SERVICE,
    NAME,
    NODE,
    NODE_ADDRESS,
    PKI,
    POD_RANGE,
    RUN,
)
from lab.tools import tool

VOLUMES = CACHE / "volumes"

# One /24 of POD_RANGE: the bridge gives addresses by itself, whatever range the node is assigned.
POD_SUBNET = POD_RANGE.replace(".0.0/16", ".0.0/24")

NETWORK = {
    "cniVersion": "0.4.0",
    "name": "lab",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cbr0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": f"{RUN}/cni-state",
                "ranges": [[{"subnet": POD_SUBNET}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}

KUBELET = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "failCgroupV1": False,
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": f"/{NAME}",
    "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
    "failSwapOn": False,
    "oomScoreAdj": 0,
    "enforceNodeAllocatable": [],
    "localStorageCapacityIsolation": False,
    "clusterDNS": [DNS_SERVICE],
    "clusterDomain": "cluster.local",
    "resolvConf": f"{RUN}/resolv.conf",
    # The disk is the developer's own: how full it is must not evict pods or delete images.
    "evictionHard": {
        "memory.available": "100Mi",
        "nodefs.available": "0%",
        "imagefs.available": "0%",
        "nodefs.inodesFree": "0%",
    },
    "imageGCHighThresholdPercent": 100,
    "authentication": {
        "anonymous": {"enabled": False},
        "webhook": {"enabled": True},
        "x509": {"clientCAFile": f"{PKI}/ca.crt"},
    },
    "authorization": {"mode": "AlwaysAllow"},
    "volumePluginDir": f"{RUN}/volume-plugins",
    "maxPods": 250,
    "nodeStatusUpdateFrequency": "5s",
}

PROXY = {
    "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
    "kind": "KubeProxyConfiguration",
    "mode": "iptables",
    "hostnameOverride": NODE,
    "clusterCIDR": POD_RANGE,
    "clientConnection": {"kubeconfig": f"{PKI}/proxy.conf"},
    "conntrack": {
        "maxPerCore": 0,
        "min": 0,
        "tcpEstablishedTimeout": "0s",
        "tcpCloseWaitTimeout": "0s",
    },
}


def configure(pause: str) -> None:
    """Write the configuration files of all three; `pause` is the image of pod sandboxes."""
    for folder in (CONTAINERD, VOLUMES, RUN / "cni"):
        folder.mkdir(parents=True, exist_ok=True)
    # Volumes are written by pods of any user; the provisioner makes one folder for each.
    VOLUMES.chmod(0o755)
    # Pods resolve names of the cluster and no others.
    (RUN / "resolv.conf").write_text("")
    (RUN / "containerd.toml").write_text(_containerd_config(pause))
    (RUN / "cni" / "10-lab.conflist").write_text(json.dumps(NETWORK))
    (RUN / "kubelet.json").write_text(json.dumps(KUBELET))
    (RUN / "proxy.json").write_text(json.dumps(PROXY))


def containerd() -> list[str]:
    return ["containerd", f"--config={RUN}/containerd.toml"]


def kubelet(root: Path) -> list[str]:
    return [
        str(tool("kubelet")),
        f"--config={RUN}/kubelet.json",
        f"--kubeconfig={PKI}/kubelet.conf",
        f"--root-dir={root}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
    ]


def proxy() -> list[str]:
    return [str(tool("kube-proxy")), f"--config={RUN}/proxy.json"]


def _containerd_config(pause: str) -> str:
    return f"""
version = 2
root = "{CONTAINERD}"
state = "{RUN}/containerd"
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{RUN}/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # A root without CAP_SYS_RESOURCE may not lower the score, and no pod would start.
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{RUN}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "/usr/sbin/runc"
      SystemdCgroup = false
"""
