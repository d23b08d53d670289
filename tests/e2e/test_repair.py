"""What somebody changes or deletes behind the operator's back comes back."""

import pytest

from lab.observe import children, eventually
from lab.target import Target


def test_hand_edited_deployment_is_put_back(kube: Target, namespace: str, idle: str) -> None:
    where = ["deployment", idle, f"--namespace={namespace}"]
    before = kube.get(*where)["spec"]

    kube.kubectl("patch", *where, "--type=merge", "-p", '{"spec": {"minReadySeconds": 99}}')
    kube.kubectl("scale", "deployment", idle, f"--namespace={namespace}", "--replicas=2")

    eventually(lambda: kube.get(*where)["spec"]["replicas"] == 0, "replicas are put back")
    container = kube.get(*where)["spec"]["template"]["spec"]["containers"][0]
    assert container == before["template"]["spec"]["containers"][0]


@pytest.mark.parametrize("kind", ["deployment", "service", "serviceaccount"])
def test_deleted_child_comes_back(kube: Target, namespace: str, idle: str, kind: str) -> None:
    where = [kind, idle, f"--namespace={namespace}"]
    before = kube.get(*where)["metadata"]["uid"]

    kube.kubectl("delete", *where)

    eventually(lambda: kube.get(*where)["metadata"]["uid"] != before, f"a new {kind}")


def test_children_go_with_their_owner(kube: Target, namespace: str, idle: str) -> None:
    kinds = sorted(child["kind"] for child in children(kube, idle, namespace))
    assert kinds == ["Deployment", "Service", "ServiceAccount"]

    kube.kubectl("delete", "rerankerservice", idle, f"--namespace={namespace}")

    eventually(lambda: not children(kube, idle, namespace), "no child is left")
