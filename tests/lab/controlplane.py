"""Command lines of etcd, kube-apiserver, controller-manager and scheduler.

The lab runs them in its node; the tests of the API server run the first two alone, on loopback.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from lab.settings import POD_RANGE, SERVICE_RANGE
from lab.tools import tool

# The operator's calls, without bodies: tests count its writes, and compare its role with them.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "users": ["system:serviceaccount:rerank-system:rerank-operator"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class Commands:
    """The command lines for one place to keep files and listen."""

    pki: Path
    data: Path
    audit_log: Path
    address: str
    port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380

    def etcd(self) -> list[str]:
        """A throw-away etcd: every start begins empty, so nothing is flushed to disk."""
        client = f"http://127.0.0.1:{self.etcd_port}"
        peer = f"http://127.0.0.1:{self.etcd_peer_port}"
        return [
            str(tool("etcd")),
            f"--data-dir={self.data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def apiserver(self) -> list[str]:
        """The API server, with RBAC, aggregation and an audit log of the operator's calls."""
        policy = self.pki / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT_POLICY))
        pki = self.pki
        return [
            str(tool("kube-apiserver")),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--client-ca-file={pki}/ca.crt",
            f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki}/apiserver.crt",
            f"--service-account-signing-key-file={pki}/apiserver.key",
            f"--requestheader-client-ca-file={pki}/ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={pki}/front-proxy.crt",
            f"--proxy-client-key-file={pki}/front-proxy.key",
            # Aggregated APIs are dialled by pod address: no kube-proxy on the API server's path.
            "--enable-aggregator-routing=true",
            f"--kubelet-client-certificate={pki}/admin.crt",
            f"--kubelet-client-key={pki}/admin.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={self.audit_log}",
        ]

    def controller_manager(self) -> list[str]:
        """All controllers; the HPA looks every 5 s rather than every 15."""
        return [
            *self._client("kube-controller-manager", "controller-manager"),
            f"--service-account-private-key-file={self.pki}/apiserver.key",
            f"--root-ca-file={self.pki}/ca.crt",
            "--use-service-account-credentials=true",
            "--allocate-node-cidrs=true",
            f"--cluster-cidr={POD_RANGE}",
            "--horizontal-pod-autoscaler-sync-period=5s",
            f"--flex-volume-plugin-dir={self.pki}/volume-plugins",
        ]

    def scheduler(self) -> list[str]:
        """The default scheduler."""
        return self._client("kube-scheduler", "scheduler")

    def _client(self, name: str, user: str) -> list[str]:
        config = self.pki / f"{user}.conf"
        return [
            str(tool(name)),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
        ]
