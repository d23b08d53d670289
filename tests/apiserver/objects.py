"""Making a RerankerService in a test's namespace, and finding what became of it."""

from typing import Any

import yaml

from apiserver.controlplane import ControlPlane, eventually
from builders import make_body

GROUP_PATH = "/apis/rerank.dev/v1alpha1/namespaces"


class Objects:
    """One RerankerService, called `demo` unless told otherwise, and its children."""

    def __init__(self, plane: ControlPlane, namespace: str, name: str = "demo") -> None:
        self.plane = plane
        self.namespace = namespace
        self.name = name
        self.path = f"{GROUP_PATH}/{namespace}/rerankerservices/{name}"
        self.children = {
            "ServiceAccount": f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}",
            "Service": f"/api/v1/namespaces/{namespace}/services/{name}",
            "Deployment": f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}",
        }

    def ask(self, **spec: Any) -> None:
        """Create it."""
        body = make_body(namespace=self.namespace, **spec)
        body["metadata"] = {"name": self.name}
        self.plane.apply(yaml.safe_dump(body), self.namespace)

    def create(self, **spec: Any) -> None:
        """Create it and wait for its first status."""
        self.ask(**spec)
        eventually(lambda: self.get().get("status"))

    def get(self) -> dict[str, Any]:
        """Return it as it is now; {} when it is gone."""
        return self.plane.get(self.path)

    def child(self, kind: str) -> dict[str, Any]:
        """Return a child as it is now; {} when it is gone."""
        return self.plane.get(self.children[kind])

    def condition(self, name: str = "Ready") -> dict[str, Any]:
        """Return a condition; {} while it is not there."""
        conditions = self.get().get("status", {}).get("conditions", [])
        return next((found for found in conditions if found["type"] == name), {})

    def writes(self) -> list[str]:
        """Return the operator's writes in the namespace."""
        return self.plane.writes(self.namespace)

    def report_pods(self, **counts: int) -> None:
        """Give the Deployment a status, as its controller would."""
        generation = self.child("Deployment")["metadata"]["generation"]
        status = {"observedGeneration": generation, **counts}
        self.plane.patch(f"{self.children['Deployment']}/status", {"status": status})
