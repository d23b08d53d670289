"""The cluster comes to hold what is asked for, with as few writes as that takes."""

import yaml

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from builders import make_body

CHILDREN = ["ServiceAccount", "Service", "Deployment"]


def test_smallest_object_gets_its_children_and_one_status(demo: Objects) -> None:
    demo.create()

    writes = eventually(lambda: demo.writes() if len(demo.writes()) >= 4 else None)
    assert writes == [
        "patch serviceaccounts/demo",
        "patch services/demo",
        "patch deployments/demo",
        "patch rerankerservices/status/demo",
    ]
    for kind in CHILDREN:
        (owner,) = demo.child(kind)["metadata"]["ownerReferences"]
        assert owner["uid"] == demo.get()["metadata"]["uid"]
        assert owner["controller"] is True


def test_operator_is_the_one_manager_of_its_fields(demo: Objects) -> None:
    demo.create()

    managers = [
        (entry["manager"], entry["operation"])
        for kind in CHILDREN
        for entry in demo.child(kind)["metadata"]["managedFields"]
    ]

    assert managers == [("rerank-operator", "Apply")] * len(CHILDREN)


def test_restart_in_steady_state_writes_nothing(demo: Objects, operator: OperatorProcess) -> None:
    demo.create(
        replicas=2,
        resources={"requests": {"cpu": "1000m", "memory": "1024Mi"}, "limits": {"cpu": 2}},
    )
    demo.report_pods(replicas=2, updatedReplicas=2, readyReplicas=2, availableReplicas=2)
    eventually(lambda: demo.condition()["status"] == "True")
    # The log of a call ends a moment after the call: three children, two statuses.
    before = eventually(lambda: demo.writes() if len(demo.writes()) >= 5 else None)

    operator.restart()
    eventually(lambda: _passes(operator, demo.namespace) >= 1)

    assert demo.writes() == before


def _passes(operator: OperatorProcess, namespace: str) -> int:
    return sum(
        record["message"] == "nothing changed" and record["namespace"] == namespace
        for record in operator.records()
    )


def test_changed_field_reaches_the_child_and_goes_again(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    original = demo.child("Deployment")["spec"]

    plane.patch(demo.path, {"spec": {"engine": {"instruction": "Find"}, "replicas": 2}})
    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)
    plane.patch(demo.path, {"spec": {"engine": {"instruction": None}, "replicas": 1}})

    eventually(lambda: demo.child("Deployment")["spec"] == original)


def test_paused_keeps_the_children_and_resuming_brings_the_last_edit(
    demo: Objects, plane: ControlPlane
) -> None:
    demo.create()
    eventually(lambda: len(demo.writes()) >= 4)
    before = len(demo.writes())
    plane.patch(demo.path, {"spec": {"paused": True}})
    for replicas in (2, 3, 4, 5, 6):
        plane.patch(demo.path, {"spec": {"replicas": replicas}})
    eventually(lambda: demo.get()["status"]["observedGeneration"] == 7)
    assert demo.condition()["reason"] == "Paused"
    assert demo.child("Deployment")["spec"]["replicas"] == 1
    eventually(lambda: len(demo.writes()) > before)
    assert set(demo.writes()[before:]) == {"patch rerankerservices/status/demo"}

    plane.patch(demo.path, {"spec": {"paused": False}})

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 6)
    eventually(lambda: demo.condition()["reason"] != "Paused")


def test_scale_goes_through_the_subresource(demo: Objects, plane: ControlPlane) -> None:
    demo.create()

    plane.kubectl("scale", "rrs/demo", "--replicas=3", "-n", demo.namespace)

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 3)
    demo.report_pods(replicas=3)
    eventually(lambda: plane.get(f"{demo.path}/scale")["status"]["replicas"] == 3)
    assert plane.get(f"{demo.path}/scale")["status"]["selector"] == (
        "app.kubernetes.io/name=reranker,rerank.dev/service=demo"
    )


def test_kubectl_waits_for_ready(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    demo.report_pods(replicas=1, updatedReplicas=1, readyReplicas=1, availableReplicas=1)

    answer = plane.kubectl(
        "wait", "rrs/demo", "--for=condition=Ready", "-n", demo.namespace, "--timeout=15s"
    )

    assert "condition met" in answer


def test_trouble_is_told_in_an_event_once(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    events = f"/apis/events.k8s.io/v1/namespaces/{demo.namespace}/events"

    def refuse(words: str) -> None:
        refused = {"type": "ReplicaFailure", "status": "True", "message": words}
        demo.report_pods(conditions=[refused])
        eventually(lambda: demo.condition()["message"] == words)

    refuse("violates PodSecurity")
    refuse("violates another policy")

    # What describes the object to a user.
    described = plane.kubectl("describe", "rrs", "demo", f"--namespace={demo.namespace}")

    # Of this trouble: a loaded machine was seen to have one more, on the way there.
    found = [(event["reason"], event["note"]) for event in plane.get(events)["items"]]
    told = [each for each in found if each[0] == "PodsRefused"]
    assert told == [("PodsRefused", "violates PodSecurity")], found
    assert "violates PodSecurity" in described.partition("Events:")[2]


def test_status_never_runs_ahead_of_the_children(demo: Objects, plane: ControlPlane) -> None:
    demo.create()
    demo.report_pods(replicas=1, updatedReplicas=1, readyReplicas=1, availableReplicas=1)
    eventually(lambda: demo.condition()["status"] == "True")

    plane.patch(demo.path, {"spec": {"image": "other:1"}})

    # Nobody rolls the Deployment out here, so Ready must fall with the generation it speaks of.
    eventually(lambda: demo.get()["status"]["observedGeneration"] == 2)
    assert demo.condition()["status"] == "False"
    assert demo.condition()["observedGeneration"] == 2


def test_long_name_works(demo: Objects, plane: ControlPlane) -> None:
    body = make_body()
    body["metadata"] = {"name": "a." * 126 + "a"}
    plane.apply(yaml.safe_dump(body), demo.namespace)

    services = eventually(
        lambda: plane.get(f"/api/v1/namespaces/{demo.namespace}/services")["items"]
    )

    assert len(services[0]["metadata"]["name"]) <= 52


def test_edits_faster_than_a_pass_settle_on_the_last(demo: Objects, plane: ControlPlane) -> None:
    demo.create()

    for replicas in (*(2, 3) * 10, 1):
        plane.patch(demo.path, {"spec": {"replicas": replicas}})

    eventually(lambda: demo.get()["status"]["observedGeneration"] == 22)
    assert demo.child("Deployment")["spec"]["replicas"] == 1
