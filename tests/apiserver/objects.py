"""Making a RerankerService in a test's namespace, and finding what became of it."""

from typing import Any

import yaml

from apiserver.controlplane import ControlPlane, eventually
from builders import make_body
from rerank_operator.cluster import api_path
from rerank_operator.names import CHILD_KINDS, OPTIONAL_KINDS

GROUP_PATH = "/apis/rerank.dev/v1alpha1/namespaces"


class Objects:
    """One RerankerService, called `demo` unless told otherwise, and its children."""

    def __init__(self, plane: ControlPlane, namespace: str, name: str = "demo") -> None:
        self.plane = plane
        self.namespace = namespace
        self.name = name
        self.path = f"{GROUP_PATH}/{namespace}/rerankerservices/{name}"
        self.children = self.paths(name)

    def paths(self, name: str) -> dict[str, str]:
        """Return where a child of each kind is, under a name of its own."""
        kinds = (*CHILD_KINDS, *OPTIONAL_KINDS)
        return {kind.name: f"{api_path(kind, self.namespace)}/{name}" for kind in kinds}

    def ask(self, **spec: Any) -> None:
        """Create it."""
        body = make_body(namespace=self.namespace, **spec)
        body["metadata"] = {"name": self.name}
        self.plane.apply(yaml.safe_dump(body), self.namespace)

    def create(self, **spec: Any) -> None:
        """Create it and wait for its first status."""
        self.ask(**spec)
        eventually(lambda: self.get().get("status"))

    def replace(self, spec: dict[str, Any]) -> None:
        """Ask for something else altogether."""
        headers = {"Content-Type": "application/json-patch+json"}
        body = [{"op": "replace", "path": "/spec", "value": spec}]
        self.plane.http.patch(self.path, json=body, headers=headers).raise_for_status()

    def get(self) -> dict[str, Any]:
        """Return it as it is now; {} when it is gone."""
        return self.plane.get(self.path)

    def child(self, kind: str) -> dict[str, Any]:
        """Return a child as it is now; {} when it is gone."""
        return self.plane.get(self.children[kind])

    def copy(self, kind: str, name: str) -> None:
        """Make one more of a child, under another name: one that nobody wants."""
        child = self.child(kind)
        metadata = {key: child["metadata"][key] for key in ("labels", "ownerReferences")}
        # A Service's addresses are its own.
        spec = {
            key: value
            for key, value in child.get("spec", {}).items()
            if key not in ("clusterIP", "clusterIPs")
        }
        copy = {
            "apiVersion": child["apiVersion"],
            "kind": kind,
            "metadata": metadata | {"name": name},
            **({"spec": spec} if spec else {}),
        }
        path = self.children[kind].rpartition("/")[0]
        self.plane.http.post(path, json=copy).raise_for_status()

    def condition(self, name: str = "Ready") -> dict[str, Any]:
        """Return a condition; {} while it is not there."""
        conditions = self.get().get("status", {}).get("conditions", [])
        return next((found for found in conditions if found["type"] == name), {})

    def writes(self) -> list[str]:
        """Return the operator's writes in the namespace."""
        return self.plane.writes(self.namespace)

    def report_pods(self, **counts: Any) -> None:
        """Give the Deployment a status, as its controller would."""
        generation = self.child("Deployment")["metadata"]["generation"]
        status = {"observedGeneration": generation, **counts}
        self.plane.patch(f"{self.children['Deployment']}/status", {"status": status})
