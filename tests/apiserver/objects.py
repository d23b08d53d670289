"""Making a RerankerService in a test's namespace, and finding what became of it."""

from typing import Any

import yaml

from apiserver.controlplane import ControlPlane, eventually
from builders import make_body

GROUP_PATH = "/apis/rerank.dev/v1alpha1/namespaces"


class Objects:
    """One RerankerService called `demo`, and its children."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.path = f"{GROUP_PATH}/{namespace}/rerankerservices/demo"
        self.children = {
            "ServiceAccount": f"/api/v1/namespaces/{namespace}/serviceaccounts/demo",
            "Service": f"/api/v1/namespaces/{namespace}/services/demo",
            "Deployment": f"/apis/apps/v1/namespaces/{namespace}/deployments/demo",
            "PodDisruptionBudget": f"/apis/policy/v1/namespaces/{namespace}"
            "/poddisruptionbudgets/demo",
            "NetworkPolicy": f"/apis/networking.k8s.io/v1/namespaces/{namespace}"
            "/networkpolicies/demo",
            "PodMonitor": f"/apis/monitoring.coreos.com/v1/namespaces/{namespace}/podmonitors/demo",
        }

    def create(self, **spec: Any) -> None:
        """Create it and wait for its first status."""
        body = make_body(namespace=self.namespace, **spec)
        body["metadata"] = {"name": "demo"}
        self.plane.apply(yaml.safe_dump(body), self.namespace)
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
