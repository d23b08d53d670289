"""The operator as a process: rights, namespaces, health, start and stop."""

import re
from typing import Any

import yaml

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from builders import make_body
from rerank_operator.names import CHILD_KINDS, OPTIONAL_KINDS, OWNER_LABEL
from rerank_operator.rights import Right, lease_rights, rights

ROLES = "/apis/rbac.authorization.k8s.io/v1"


def test_roles_grant_what_is_used_and_nothing_else(demo: Objects, plane: ControlPlane) -> None:
    def used() -> set[Right]:
        return {right for entry in plane.calls() for right in rights_of(entry)}

    demo.create(
        replicas=2,
        networkPolicy={"enabled": True},
        monitoring={"podMonitor": True},
        cache={"retain": False, "accessModes": ["ReadWriteMany"]},
        autoscaling={"type": "hpa", "maxReplicas": 4},
    )
    eventually(lambda: demo.child("Job"))
    for name in ("Job", "PersistentVolumeClaim", "Service", "ServiceAccount"):
        lose_label(demo, name)
    # It gets no pod, and the operator asks why.
    eventually(lambda: Right("events.k8s.io", "events", "list") in used(), 30)
    demo.finish_download()
    # There is one autoscaler at a time.
    eventually(lambda: all(demo.child(kind) for kind in demo.children.keys() - {"ScaledObject"}))
    for name in (
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
    ):
        lose_label(demo, name)
    demo.report_pods(conditions=[{"type": "ReplicaFailure", "status": "True", "message": "no"}])
    # Children that are no longer wanted may be of any kind: deleting them is a right as well.
    for kind in CHILD_KINDS:
        demo.copy(kind.name, "extra")
    eventually(lambda: not any(plane.get(path) for path in demo.paths("extra").values()))
    # What is not watched is not seen either, unless it was there for us.
    plane.patch(demo.path, {"spec": {"autoscaling": {"type": "keda"}}})
    eventually(lambda: demo.child("ScaledObject"))
    other = Objects(plane, demo.namespace, "other")
    for kind in OPTIONAL_KINDS:
        child = demo.child(kind.name)
        foreign = {key: child[key] for key in ("apiVersion", "kind", "spec")}
        path = other.children[kind.name].rpartition("/")[0]
        plane.http.post(path, json=foreign | {"metadata": {"name": "other"}}).raise_for_status()
    other.create(monitoring={"podMonitor": True}, autoscaling={"type": "keda", "maxReplicas": 4})
    plane.patch(demo.path, {"spec": {"monitoring": {"podMonitor": False}, "autoscaling": None}})
    eventually(lambda: not demo.child("PodMonitor") and not demo.child("ScaledObject"))

    everywhere = granted(plane, f"{ROLES}/clusterroles/rerank-operator")
    of_lease = granted(plane, f"{ROLES}/namespaces/rerank-system/roles/rerank-operator-lease")
    eventually(lambda: used() == everywhere | of_lease)
    assert everywhere == set(rights())
    assert of_lease == set(lease_rights())


def lose_label(demo: Objects, kind: str) -> None:
    """Take from a child the label that it is watched by: it is looked at, and put back."""
    child = demo.child(kind)
    path = f"{demo.children[kind].rpartition('/')[0]}/{child['metadata']['name']}"
    demo.plane.patch(path, {"metadata": {"labels": {OWNER_LABEL: None}}})
    eventually(lambda: OWNER_LABEL in demo.plane.get(path)["metadata"]["labels"])


def granted(plane: ControlPlane, path: str) -> set[Right]:
    """Return the rights in a role."""
    return {
        Right(group, resource, verb)
        for rule in plane.get(path)["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def rights_of(entry: dict[str, Any]) -> set[Right]:
    """Return what a call in the audit log took; the API server must have allowed it."""
    assert entry["annotations"]["authorization.k8s.io/decision"] == "allow", entry
    if "objectRef" not in entry:
        return set()
    reference = entry["objectRef"]
    resource = "/".join(
        reference[part] for part in ("resource", "subresource") if reference.get(part)
    )
    verbs = {entry["verb"]}
    # An apply that creates is logged as a patch, and checked for both.
    if entry["verb"] == "patch" and entry["responseStatus"]["code"] == 201:
        verbs.add("create")
    return {Right(reference.get("apiGroup", ""), resource, verb) for verb in verbs}


def test_hundred_objects_at_once(
    plane: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    bodies = []
    for number in range(100):
        body = make_body()
        body["metadata"] = {"name": f"demo-{number}"}
        bodies.append(body)
    plane.apply(yaml.safe_dump_all(bodies), namespace)

    eventually(lambda: len(plane.writes(namespace)) >= 400, seconds=60)

    assert len(plane.writes(namespace)) == 400
    assert operator.memory_mib() < 128


def test_log_lines_are_json_and_name_object_and_reason(
    demo: Objects, operator: OperatorProcess
) -> None:
    demo.create()

    def written() -> dict[str, object]:
        return next(
            (
                record
                for record in operator.records()
                if record["message"] == "status changed" and record["namespace"] == demo.namespace
            ),
            {},
        )

    record = eventually(written)
    assert record["service"] == "demo"
    assert record["reason"] == "RollingOut"
    assert re.match(r"\d{4}-\d\d-\d\dT", str(record["time"]))
