"""Making a RerankerService in a test's namespace, and finding what became of it."""

import json
from typing import Any

import yaml

from apiserver.controlplane import ControlPlane, eventually
from builders import make_body
from rerank_operator.cluster import api_path
from rerank_operator.names import CHILD_KINDS, DOWNLOAD_LABEL, OPTIONAL_KINDS

COMMIT = "c0" * 20
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
        if kind == "Job":
            return next(iter(self.jobs()), {})
        return self.plane.get(self.children[kind])

    def jobs(self) -> list[dict[str, Any]]:
        """Return its Jobs, whose names hold a hash, oldest first."""
        path = self.children["Job"].rpartition("/")[0]
        query = f"?labelSelector=rerank.dev/service={self.name}"
        found: list[dict[str, Any]] = self.plane.get(path + query)["items"]
        found.sort(key=lambda job: int(job["metadata"]["resourceVersion"]))
        return [job | {"apiVersion": "batch/v1", "kind": "Job"} for job in found]

    def run_job(self, state: dict[str, Any], **container: Any) -> None:
        """Have the newest Job's pod in a state, as the Job's controller and a kubelet would."""
        job = self.jobs()[-1]
        template = job["spec"]["template"]
        name = f"{job['metadata']['name']}-pod"
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        if not self.plane.get(f"{path}/{name}"):
            # Selected by the Job's own label, which the API server has added.
            metadata = template["metadata"] | {"name": name, "namespace": self.namespace}
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata}
            self.plane.http.post(path, json=pod | {"spec": template["spec"]}).raise_for_status()
        own = {"name": "download", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
        status = {"phase": "Running", "containerStatuses": [own | {"state": state} | container]}
        self.plane.patch(f"{path}/{name}/status", {"status": status})

    def delete_job(self) -> None:
        """Delete the newest Job; the API server would leave its end to the garbage collector."""
        path = self.children["Job"].rpartition("/")[0]
        name = self.jobs()[-1]["metadata"]["name"]
        self.plane.delete(f"{path}/{name}?propagationPolicy=Background")

    def finish_download(self, commit: str = COMMIT) -> None:
        """Have the newest Job's pod end well, and its controller say so."""
        job = self.jobs()[-1]["metadata"]["name"]
        model = self.get()["spec"]["model"]["name"]
        message = json.dumps({"model": model, "revision": commit, "bytes": 1})
        self.run_job({"terminated": {"exitCode": 0, "message": message}})
        # By then it may be gone.
        self.plane.http.patch(
            f"{self.children['Job'].rpartition('/')[0]}/{job}/status",
            json={"status": {"succeeded": 1}},
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def forget_claim(self) -> None:
        """Delete the claim, as if no pod used it; no controller runs that would see to that."""
        path = self.children["PersistentVolumeClaim"]
        self.plane.delete(path)
        if self.plane.get(path):
            self.plane.patch(path, {"metadata": {"finalizers": None}})

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
        if kind == "Job":
            # Its pods are told apart by what the API server puts in.
            del spec["selector"], spec["template"]["metadata"]["labels"]
            # One that does not hold what the model came with.
            metadata["labels"] = metadata["labels"] | {DOWNLOAD_LABEL: "other"}
        copy = {
            "apiVersion": child["apiVersion"],
            "kind": kind,
            "metadata": metadata | {"name": name},
            **({"spec": spec} if spec else {}),
        }
        path = self.children[kind].rpartition("/")[0]
        self.plane.http.post(path, json=copy).raise_for_status()
        if kind == "PersistentVolumeClaim":
            self.plane.patch(f"{path}/{name}", {"metadata": {"finalizers": None}})

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
