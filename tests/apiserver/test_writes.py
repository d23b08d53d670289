"""Whatever goes wrong at whichever write: the end is the same, and nothing is made twice.

One operator works on many services at once. Each takes the same steps, and each has a fault of its
own at one of its writes.
"""

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import pytest

from apiserver.controlplane import ControlPlane, eventually
from apiserver.fault_proxy import Fault, FaultProxy, start_fault_proxy
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from builders import make_body
from rerank_operator.cluster import api_path
from rerank_operator.names import CHILD_KINDS, OPTIONAL_KINDS, RERANKERS, Kind

# With all its children, but for the HorizontalPodAutoscaler: it is that or the ScaledObject.
SPEC: dict[str, Any] = {
    "replicas": 2,
    "networkPolicy": {"enabled": True},
    "monitoring": {"podMonitor": True},
    "autoscaling": {"type": "keda", "maxReplicas": 4},
    "cache": {"retain": False},
}
# One that hangs takes half a minute: those services go first.
FAULTS = [
    Fault("hang"),
    *(Fault(status) for status in (409, 410, 429, 500, 503)),
    Fault(504, after=True),
    Fault("reset"),
    Fault("reset", after=True),
]
# What differs between two services that are the same: UIDs, times, addresses, hashes.
VOLATILE = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{4}-\d\d-\d\dT[\d:.]+Z|10(\.\d+){3}|"
    r"\b[0-9a-f]{10,16}\b"
)


def create(service: Objects) -> None:
    body = make_body(**SPEC)
    body["metadata"] = {"name": service.name}
    path = service.path.rpartition("/")[0]
    service.plane.http.post(path, json=body).raise_for_status()


def start_download(service: Objects) -> None:
    service.run_job({"waiting": {"reason": "ContainerCreating"}})


def report_ready_pods(service: Objects) -> None:
    service.report_pods(replicas=2, updatedReplicas=2, readyReplicas=2, availableReplicas=2)


def change(service: Objects) -> None:
    change = {"engine": {"maxModelLen": 512}, "replicas": 3}
    service.plane.patch(service.path, {"spec": change})


def leave_out(service: Objects) -> None:
    without = {"networkPolicy": None, "monitoring": None, "autoscaling": None}
    service.plane.patch(service.path, {"spec": without})


STEPS: list[Callable[[Objects], None]] = [
    create,
    start_download,
    Objects.finish_download,
    report_ready_pods,
    change,
    leave_out,
]


class Step(NamedTuple):
    """What a step comes to where nothing goes wrong: the writes in order, and the service then."""

    writes: list[str]
    state: str


class Course(NamedTuple):
    """A service with a fault at one write: the number of the step, and of the write in it."""

    service: Objects
    step: int
    write: int
    fault: Fault

    def __str__(self) -> str:
        return f"{self.fault} write {self.write} of step {self.step}"


@pytest.fixture(scope="module")
def proxy(unattended: ControlPlane) -> Iterator[FaultProxy]:
    with start_fault_proxy(unattended) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def faulty(unattended: ControlPlane, proxy: FaultProxy) -> Iterator[OperatorProcess]:
    """The operator, by way of the proxy; a write that hangs holds one of its workers."""
    operator = OperatorProcess(unattended, kubeconfig=proxy.kubeconfig, workers="64")
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture(scope="module")
def reference(unattended: ControlPlane, proxy: FaultProxy, faulty: OperatorProcess) -> list[Step]:
    """What each step comes to."""
    service = make_service(unattended, "reference")
    steps = []
    for step in STEPS:
        before = len(proxy.writes)
        step(service)
        wait_for_quiet(proxy)
        writes = [write.what for write in proxy.writes[before:]]
        steps.append(Step(writes, states(unattended, RERANKERS)[service.namespace]))
    return steps


def make_service(plane: ControlPlane, namespace: str) -> Objects:
    """Return a service that is yet to be created, in a namespace of its own."""
    body = {"metadata": {"name": namespace}}
    plane.http.post("/api/v1/namespaces", json=body).raise_for_status()
    return Objects(plane, namespace)


def wait_for_quiet(proxy: FaultProxy) -> None:
    """Return once there was no write for a second."""
    seen, since = 0, time.monotonic()

    def quiet() -> bool:
        nonlocal seen, since
        if len(proxy.writes) != seen:
            seen, since = len(proxy.writes), time.monotonic()
        return seen > 0 and time.monotonic() > since + 1

    eventually(quiet, 30)


def states(plane: ControlPlane, *kinds: Kind) -> dict[str, str]:
    """Return for each namespace what is in it, in a form that can be compared with another's."""
    found: dict[str, list[Any]] = {}
    for kind in kinds:
        for body in plane.get(api_path(kind, None))["items"]:
            metadata = body["metadata"]
            if kind == RERANKERS or "rerank.dev/service" in metadata.get("labels", {}):
                kept = ("name", "labels", "annotations", "ownerReferences", "generation")
                shown = {key: metadata.get(key) for key in kept}
                shown["goes"] = "deletionTimestamp" in metadata
                state = [kind.name, shown, body.get("spec"), body.get("status")]
                found.setdefault(metadata["namespace"], []).append(state)
    return {
        namespace: VOLATILE.sub("-", json.dumps(objects, sort_keys=True, indent=1)).replace(
            namespace, "NAMESPACE"
        )
        for namespace, objects in found.items()
    }


def made(proxy: FaultProxy, namespace: str) -> Counter[str]:
    """Return how many objects of each kind the API server has created and deleted there.

    Events tell of faults, so that there are more of them where something went wrong.
    """
    return Counter(
        write.what
        for write in proxy.writes
        if write.namespace == namespace
        and write.what != "post events"
        and (write.status == 201 or (write.what.startswith("delete") and write.status == 200))
    )


def courses(
    plane: ControlPlane, reference: list[Step], faults: Sequence[Fault], prefix: str
) -> list[Course]:
    """Return a service for each fault at each write."""
    points = [
        (step, write, fault)
        for fault in faults
        for step, (writes, _) in enumerate(reference)
        for write in range(len(writes))
    ]
    return [
        Course(make_service(plane, f"{prefix}-{number}"), *point)
        for number, point in enumerate(points)
    ]


def begin(course: Course, step: int, proxy: FaultProxy) -> None:
    if course.step == step:
        proxy.plan(course.service.namespace, course.write, course.fault)
    STEPS[step](course.service)


def assert_same_as_reference(
    plane: ControlPlane, proxy: FaultProxy, all_courses: list[Course]
) -> None:
    """Check what there is in the end, and how often something was created or deleted."""
    expected = made(proxy, "reference")
    assert set(expected) > {"patch deployments", "patch jobs", "delete networkpolicies"}
    different = [
        f"{course}: {dict(counts - expected)} too many, {dict(expected - counts)} too few"
        for course in all_courses
        if (counts := made(proxy, course.service.namespace)) != expected
    ]
    assert different == []

    def same() -> bool:
        found = states(plane, RERANKERS, *CHILD_KINDS, *OPTIONAL_KINDS)
        wanted = found["reference"]
        assert [str(c) for c in all_courses if found[c.service.namespace] != wanted] == []
        return True

    eventually(same, 5)


def test_fault_at_any_write_is_made_up_for(
    unattended: ControlPlane, proxy: FaultProxy, faulty: OperatorProcess, reference: list[Step]
) -> None:
    # Else that listing has every service worked on again, and a write that is not tried again is
    # made up for by chance. The next is minutes away.
    eventually(lambda: any(record["message"] == "listed again" for record in faulty.records()), 60)
    all_courses = courses(unattended, reference, FAULTS, "fault")
    at = {course: 0 for course in all_courses}
    for course in all_courses:
        begin(course, 0, proxy)

    def all_done() -> bool:
        found = states(unattended, RERANKERS)
        for course, step in list(at.items()):
            namespace = course.service.namespace
            struck = step != course.step or not proxy.is_due(namespace)
            if not struck or found.get(namespace) != reference[step].state:
                continue
            del at[course]
            if step + 1 < len(STEPS):
                at[course] = step + 1
                begin(course, step + 1, proxy)
        assert [f"{course}, in step {step}" for course, step in at.items()] == []
        return True

    eventually(all_done, 240, pause=1)

    assert_same_as_reference(unattended, proxy, all_courses)
    assert faulty.running()


def test_operator_killed_at_any_write_leaves_nothing_undone_or_done_twice(
    unattended: ControlPlane, proxy: FaultProxy, faulty: OperatorProcess, reference: list[Step]
) -> None:
    killed_at = [Fault("hang"), Fault("hang", after=True)]
    all_courses = courses(unattended, reference, killed_at, "kill")

    def assert_done(step: Step) -> bool:
        found = states(unattended, RERANKERS)
        namespaces = {str(course): course.service.namespace for course in all_courses}
        assert [name for name, each in namespaces.items() if found[each] != step.state] == []
        return True

    for number, step in enumerate(reference):
        for course in all_courses:
            begin(course, number, proxy)
        # Each then stands at its write: before it, or with the answer on its way.
        eventually(lambda: not any(proxy.is_due(c.service.namespace) for c in all_courses), 25)
        faulty.signal(signal.SIGKILL)
        faulty.exit_code()
        faulty.start()
        eventually(partial(assert_done, step), 30, pause=0.3)

    assert_same_as_reference(unattended, proxy, all_courses)
