"""What others do to the children."""

import re
from typing import Any

import pytest
import yaml

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from rerank_operator.api.schema import QUANTITY
from rerank_operator.drift import holds

CHILDREN = ["ServiceAccount", "Service", "Deployment", "PodDisruptionBudget", "NetworkPolicy"]
# What it takes to have them all.
ALL: dict[str, Any] = {"replicas": 2, "networkPolicy": {"enabled": True}}

OWNED_EDITS: list[tuple[str, dict[str, Any]]] = [
    ("ServiceAccount", {"automountServiceAccountToken": True}),
    ("Service", {"spec": {"selector": {"app.kubernetes.io/name": "other"}}}),
    ("Deployment", {"spec": {"replicas": 7}}),
    ("Deployment", {"spec": {"template": {"spec": {"enableServiceLinks": True}}}}),
    ("PodDisruptionBudget", {"spec": {"maxUnavailable": 2}}),
    ("PodDisruptionBudget", {"spec": {"unhealthyPodEvictionPolicy": "IfHealthyBudget"}}),
    ("NetworkPolicy", {"spec": {"ingress": None}}),
    ("NetworkPolicy", {"spec": {"ingress": [{}]}}),
    *[(kind, {"metadata": {"labels": {"rerank.dev/service": None}}}) for kind in CHILDREN],
    *[(kind, {"metadata": {"ownerReferences": None}}) for kind in CHILDREN],
    *[(kind, {"metadata": {"annotations": {"rerank.dev/applied-hash": "x"}}}) for kind in CHILDREN],
]


@pytest.mark.parametrize(("kind", "edit"), OWNED_EDITS, ids=str)
def test_edit_of_an_owned_field_is_put_back(
    demo: Objects, plane: ControlPlane, kind: str, edit: dict[str, Any]
) -> None:
    demo.create(**ALL)
    before = intent(demo.child(kind))

    plane.patch(demo.children[kind], edit)

    eventually(lambda: intent(demo.child(kind)) == before)


def intent(child: dict[str, Any]) -> dict[str, Any]:
    """Return what a child says, without what each write of it moves."""
    metadata = {
        key: child["metadata"].get(key) for key in ("labels", "annotations", "ownerReferences")
    }
    return {key: child[key] for key in child if key not in ("metadata", "status")} | metadata


def test_edit_of_a_field_that_is_not_ours_is_kept(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    plane.patch(
        demo.children["Deployment"],
        {
            "metadata": {"annotations": {"mine": "1"}},
            "spec": {"template": {"spec": {"priorityClassName": "high"}}},
        },
    )

    plane.patch(demo.path, {"spec": {"replicas": 2}})

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)
    assert demo.child("Deployment")["metadata"]["annotations"]["mine"] == "1"
    assert demo.child("Deployment")["spec"]["template"]["spec"]["priorityClassName"] == "high"


def test_restart_for_a_rotated_secret_is_kept(demo: Objects, plane: ControlPlane) -> None:
    demo.create(podTemplate={"annotations": {"mine": "1"}})
    plane.kubectl("rollout", "restart", "deployment/demo", "-n", demo.namespace)

    plane.patch(demo.path, {"spec": {"replicas": 2}})

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)
    annotations = demo.child("Deployment")["spec"]["template"]["metadata"]["annotations"]
    assert set(annotations) == {"mine", "kubectl.kubernetes.io/restartedAt"}


@pytest.mark.parametrize("kind", CHILDREN)
def test_deleted_child_comes_back(demo: Objects, plane: ControlPlane, kind: str) -> None:
    demo.create(**ALL)
    uid = demo.child(kind)["metadata"]["uid"]

    plane.delete(demo.children[kind])

    eventually(lambda: demo.child(kind).get("metadata", {}).get("uid") not in (uid, None))


def test_pod_monitor_that_went_comes_back_with_the_next_listing(
    demo: Objects, plane: ControlPlane, operator: OperatorProcess
) -> None:
    demo.create(monitoring={"podMonitor": True})
    plane.delete(demo.children["PodMonitor"])

    # The listing at the start of an operator is the same as that of every ten minutes.
    operator.restart()

    eventually(lambda: demo.child("PodMonitor"))


def test_drift_while_the_operator_was_away_is_put_back(
    demo: Objects, plane: ControlPlane, operator: OperatorProcess
) -> None:
    demo.create()
    operator.stop()
    plane.patch(demo.children["Deployment"], {"spec": {"replicas": 7}})
    plane.delete(demo.children["Service"])

    operator.start()

    eventually(lambda: demo.child("Service") and demo.child("Deployment")["spec"]["replicas"] == 1)


# The least and the most of each form that the schema takes.
QUANTITIES = [
    *["1n", "1u", "1e-9", ".0000000001m", "0.0005", f"1.{'0' * 28}1", "0.0001Ki", "1.0005m"],
    *["9" * 18, "9" * 18 + ".999", "9" * 18 + "m", "9" * 18 + "n", "9" * 9 + "e9"],
    *[
        "9" * digits + suffix
        for digits, suffixes in ((15, "k Ki"), (12, "M Mi"), (9, "G Gi"), (6, "T Ti"), (3, "P Pi"))
        for suffix in suffixes.split()
    ],
    *["9E", "9.999E", "7Ei", "7.999Ei", ".999999Ei"],
]


def test_quantity_at_its_bounds_is_never_drift(plane: ControlPlane, namespace: str) -> None:
    wanted = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bounds"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "containers": [
                        {"name": f"c{number}", "image": "i", "resources": {"limits": {"cpu": text}}}
                        for number, text in enumerate(QUANTITIES)
                    ]
                },
            },
        },
    }

    plane.apply(yaml.safe_dump(wanted), namespace)

    observed = plane.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/bounds")
    pairs = zip(containers(observed), containers(wanted), strict=True)
    assert all(re.search(QUANTITY, text) for text in QUANTITIES)
    assert [pair for pair in pairs if not holds(*pair)] == []


def containers(deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of a Deployment's pods."""
    found: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return found


FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "ServiceAccount": ("v1", {}),
    "Service": ("v1", {"spec": {"ports": [{"port": 1234}]}}),
    "Deployment": (
        "apps/v1",
        {
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {
                    "metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "server", "image": "theirs"}]},
                },
            }
        },
    ),
    "PodDisruptionBudget": ("policy/v1", {"spec": {"maxUnavailable": 1}}),
    "NetworkPolicy": ("networking.k8s.io/v1", {"spec": {"podSelector": {}}}),
}


def make_foreign(demo: Objects, kind: str) -> dict[str, Any]:
    """Make somebody else's object under the name of a child of ours, and return it."""
    version, content = FOREIGN[kind]
    body = {"apiVersion": version, "kind": kind, "metadata": {"name": "demo"}, **content}
    demo.plane.apply(yaml.safe_dump(body), demo.namespace)
    return demo.child(kind)


@pytest.mark.parametrize("kind", CHILDREN)
def test_foreign_object_of_our_name_is_reported_and_never_touched(demo: Objects, kind: str) -> None:
    before = make_foreign(demo, kind)

    demo.create(**ALL)

    assert demo.condition()["reason"] == "NameConflict"
    assert f"{kind} demo" in demo.condition()["message"]
    assert (demo.get()["status"]["url"] == "") == (kind == "Service")
    assert demo.child(kind) == before


def test_foreign_object_that_goes_makes_room(demo: Objects, plane: ControlPlane) -> None:
    make_foreign(demo, "Service")
    demo.create()

    plane.delete(demo.children["Service"])

    eventually(lambda: demo.condition()["reason"] != "NameConflict")
    assert demo.child("Service")["spec"]["ports"][0]["port"] == 80
    eventually(lambda: demo.get()["status"]["url"] == f"http://demo.{demo.namespace}.svc")


def test_recreated_object_does_not_adopt_by_name(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    old = demo.child("Service")
    plane.delete(demo.path)

    # No garbage collector runs here: the children of the first stay, as with --cascade=orphan.
    demo.create()

    assert demo.condition()["reason"] == "NameConflict"
    assert demo.child("Service") == old


def test_quota_becomes_a_condition_and_its_end_a_child(demo: Objects, plane: ControlPlane) -> None:
    quota: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/deployments.apps": "0"}},
    }
    plane.apply(yaml.safe_dump(quota), demo.namespace)
    # The quota controller, absent here, is what fills this in.
    path = f"/api/v1/namespaces/{demo.namespace}/resourcequotas/none"
    plane.patch(
        f"{path}/status",
        {"status": {"hard": quota["spec"]["hard"], "used": {"count/deployments.apps": "0"}}},
    )

    demo.create()
    assert demo.condition()["reason"] == "QuotaExceeded"
    assert "exceeded quota" in demo.condition()["message"]
    plane.delete(path)

    eventually(lambda: demo.child("Deployment"))
    eventually(lambda: demo.condition()["reason"] != "QuotaExceeded")


def test_owned_child_that_is_not_wanted_is_deleted(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    service = demo.child("Service")
    extra = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "extra",
            **{key: service["metadata"][key] for key in ("labels", "ownerReferences")},
        },
        "spec": {"ports": [{"port": 1}]},
    }

    plane.apply(yaml.safe_dump(extra), demo.namespace)

    eventually(lambda: "delete services/extra" in demo.writes())
