"""Certificates and kubeconfig files of one cluster; made anew at every start."""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import trustme

# Who takes part: file name -> (common name, organisation). The names are those that Kubernetes'
# built-in roles are bound to.
USERS = {
    "admin": ("lab-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "front-proxy": ("front-proxy-client", None),
}


def write(
    directory: Path,
    url: str,
    hosts: Sequence[str],
    others: Mapping[str, tuple[str, str | None]],
) -> None:
    """Write a CA, the API server's certificate for `hosts`, and a kubeconfig for each user.

    `others` are users beside USERS, in the same form.
    """
    # Whoever reads these keys owns the cluster, and by a privileged pod the machine.
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.crt")
    _write(directory, "apiserver", authority.issue_cert(*hosts, common_name="kube-apiserver"))
    for user, (name, organization) in {**USERS, **others}.items():
        # Some host name must be there: Go refuses a certificate whose list of them is empty.
        certificate = authority.issue_cert(
            f"{user}.lab", common_name=name, organization_name=organization
        )
        _write(directory, user, certificate)
        config = _kubeconfig(directory, user, url)
        _write_private(directory / f"{user}.conf", json.dumps(config).encode())


def _write(directory: Path, name: str, certificate: trustme.LeafCert) -> None:
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    (directory / f"{name}.crt").write_bytes(chain)
    _write_private(directory / f"{name}.key", certificate.private_key_pem.bytes())


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _kubeconfig(directory: Path, user: str, url: str) -> dict[str, object]:
    def data(name: str) -> str:
        return base64.b64encode((directory / name).read_bytes()).decode()

    cluster = {"server": url, "certificate-authority-data": data("ca.crt")}
    credentials = {
        "client-certificate-data": data(f"{user}.crt"),
        "client-key-data": data(f"{user}.key"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user}}],
        "current-context": "lab",
    }
