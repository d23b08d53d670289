"""The operator as a process: rights, namespaces, health, start and stop."""

import re

import yaml

from apiserver.controlplane import OPERATOR_USER, ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from builders import make_body


def test_role_grants_what_is_used_and_nothing_else(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    role = plane.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/rerank-operator")

    granted = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    calls = [entry for entry in plane.calls(OPERATOR_USER) if "objectRef" in entry]
    used = {
        (
            "/".join(
                entry["objectRef"][part]
                for part in ("resource", "subresource")
                if entry["objectRef"].get(part)
            ),
            entry["verb"],
        )
        for entry in calls
    }

    assert {entry["annotations"]["authorization.k8s.io/decision"] for entry in calls} == {"allow"}
    assert used <= granted
    # An apply that creates is checked for `create` too, and logged as a patch. Children that are
    # no longer wanted may be of any kind.
    unseen = {(kind, verb) for kind, verb in granted - used if verb not in ("create", "delete")}
    assert unseen == set()


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
