"""The pods that a Deployment would make: whether they are let in, and what their troubles say.

Nobody runs Deployments here, so each test makes the pod that the template describes.
"""

from typing import Any

import pytest
import yaml

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from fields import FIELDS
from rerank_operator.api import Manifest

# Where a class is named, the pod is refused unless that is there.
CLASSES = """
apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: high}
value: 1
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {name: nvidia}
handler: nvidia
"""
TEMPLATE = {
    path.partition(".")[2]: change.value
    for path, change in FIELDS.items()
    if path.startswith("podTemplate.")
}
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"


def pod_of(demo: Objects, kind: str = "Deployment") -> Manifest:
    """Return the pod that a ReplicaSet, or a Job, would make."""
    template = demo.child(kind)["spec"]["template"]
    metadata = template["metadata"] | {"name": "demo-abc", "namespace": demo.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "spec": template["spec"], "metadata": metadata}


@pytest.mark.parametrize(
    "spec",
    [{}, {"accelerator": {"resource": "none"}}, {"podTemplate": TEMPLATE}],
    ids=["smallest", "cpu", "everything in podTemplate"],
)
def test_pod_passes_the_restricted_standard(
    demo: Objects, plane: ControlPlane, spec: Manifest
) -> None:
    plane.kubectl("label", "namespace", demo.namespace, RESTRICTED)
    plane.apply(CLASSES)
    demo.create(**spec)
    eventually(lambda: demo.child("Deployment"))

    answer = plane.apply(yaml.safe_dump(pod_of(demo)), check=False)

    assert answer == "pod/demo-abc created\n"


@pytest.mark.parametrize("template", [{}, TEMPLATE], ids=["smallest", "everything"])
def test_pod_that_downloads_passes_it_too(
    demo: Objects, plane: ControlPlane, template: Manifest
) -> None:
    plane.kubectl("label", "namespace", demo.namespace, RESTRICTED)
    plane.apply(CLASSES)
    demo.create(cache={}, podTemplate=template)
    eventually(lambda: demo.child("Job"))

    answer = plane.apply(yaml.safe_dump(pod_of(demo, "Job")), check=False)

    assert answer == "pod/demo-abc created\n"


def test_namespace_of_that_standard_refuses_other_pods(demo: Objects, plane: ControlPlane) -> None:
    plane.kubectl("label", "namespace", demo.namespace, RESTRICTED)
    demo.create()
    pod = pod_of(demo)
    del pod["spec"]["securityContext"]["seccompProfile"]

    answer = plane.apply(yaml.safe_dump(pod), check=False)

    assert 'violates PodSecurity "restricted' in answer


def test_missing_secret_is_told_and_the_pod_that_starts_ends_it(
    demo: Objects, plane: ControlPlane
) -> None:
    demo.create(auth={"tokenSecretRef": {"name": "api"}})
    plane.apply(yaml.safe_dump(pod_of(demo)))
    demo.report_pods(replicas=1, updatedReplicas=1)

    # The kubelet's report, in its words.
    message = 'secret "api" not found'
    report(demo, {"waiting": {"reason": "CreateContainerConfigError", "message": message}})
    eventually(lambda: demo.condition()["reason"] == "SecretNotFound")
    told = demo.condition()["message"]
    report(demo, {"running": {}})

    eventually(lambda: demo.condition()["reason"] == "LoadingModel")
    assert "there is no Secret api (spec.auth.tokenSecretRef reads its key token)" in told


def report(demo: Objects, state: dict[str, Any]) -> None:
    """Give the pod's server container a state."""
    container = {"name": "server", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
    status = {"phase": "Pending", "containerStatuses": [container | {"state": state}]}
    path = f"/api/v1/namespaces/{demo.namespace}/pods/demo-abc/status"
    demo.plane.patch(path, {"status": status})
