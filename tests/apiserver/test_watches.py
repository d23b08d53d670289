"""Watches that lose, repeat and reorder events, break, and tell of errors."""

import json
from collections.abc import Callable, Iterator

import pytest

from apiserver.controlplane import ControlPlane, eventually
from apiserver.fault_proxy import FaultProxy, start_fault_proxy
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess

ERRORS = {
    "expired": json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}) + "\n",
    "internal": json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 500}}) + "\n",
    "without code": json.dumps({"type": "ERROR", "object": {}}) + "\n",
    "no json": "upstream connect error\n",
    "no event": "{}\n",
    "half a line": '{"type": "MODIFIED", "obj',
    "end": None,
}


@pytest.fixture
def proxy(own: ControlPlane) -> Iterator[FaultProxy]:
    with start_fault_proxy(own) as proxy:
        yield proxy


@pytest.fixture
def watching(own: ControlPlane, proxy: FaultProxy) -> Iterator[OperatorProcess]:
    """An operator by way of the proxy, which writes nothing about what others have left."""
    operator = OperatorProcess(own, kubeconfig=proxy.kubeconfig)
    operator.start()
    yield operator
    operator.stop()


@pytest.fixture
def demo(own: ControlPlane, watching: OperatorProcess, request: pytest.FixtureRequest) -> Objects:
    name = f"watch-{abs(hash(request.node.name)):x}"
    own.kubectl("create", "namespace", name)
    return Objects(own, name)


def once(namespace: str, line: str | None) -> Callable[[str, bytes], bytes | None]:
    """Return what puts this in the place of one event, of the service in that namespace."""
    there = [line]

    def alter(path: str, event: bytes) -> bytes | None:
        if not there or f'"namespace":"{namespace}"'.encode() not in event:
            return event
        if "rerankerservices" not in path:
            return event
        line = there.pop()
        return line.encode() if line is not None else None

    return alter


@pytest.mark.parametrize("line", ERRORS.values(), ids=ERRORS)
def test_watch_that_breaks_is_begun_anew_and_the_event_is_not_lost(
    demo: Objects, proxy: FaultProxy, watching: OperatorProcess, line: str | None
) -> None:
    demo.create()
    proxy.alter = once(demo.namespace, line)

    demo.plane.patch(demo.path, {"spec": {"replicas": 2}})
    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)
    demo.plane.patch(demo.path, {"spec": {"replicas": 3}})

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 3)
    assert watching.running()
    assert watching.probe("healthz").status_code == 200


def test_errors_in_place_of_all_events_cost_no_more_than_time(
    demo: Objects, proxy: FaultProxy, watching: OperatorProcess
) -> None:
    demo.create()
    error = (ERRORS["internal"] or "").encode()
    proxy.alter = lambda path, event: error if "rerankerservices" in path else event

    demo.plane.patch(demo.path, {"spec": {"replicas": 2}})
    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)
    demo.plane.patch(demo.path, {"spec": {"replicas": 3}})

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 3)
    broken = [r for r in watching.records() if r["message"] == "watch broken, will list anew"]
    assert 0 < len(broken) < 15
    assert watching.running()


def test_repeated_and_reordered_events_cause_no_writes(
    demo: Objects, proxy: FaultProxy, watching: OperatorProcess
) -> None:
    last: dict[str, bytes] = {}

    def alter(path: str, event: bytes) -> bytes:
        before = last.get(path, b"")
        last[path] = event
        return event + before + event + before

    proxy.alter = alter
    demo.create()
    demo.plane.patch(demo.path, {"spec": {"replicas": 2}})
    eventually(lambda: demo.get()["status"]["observedGeneration"] == 2)
    demo.report_pods(replicas=2, updatedReplicas=2, readyReplicas=2, availableReplicas=2)
    eventually(lambda: demo.condition()["status"] == "True")

    def writes() -> list[str]:
        return [write.what for write in proxy.writes if write.namespace == demo.namespace]

    expected = [
        "patch serviceaccounts",
        "patch services",
        "patch deployments",
        "patch rerankerservices/status",
        "patch poddisruptionbudgets",
        "patch deployments",
        "patch rerankerservices/status",
        "patch rerankerservices/status",
    ]
    # The last one is noted when its answer has come, which is after the status can be seen.
    eventually(lambda: len(writes()) >= len(expected))
    assert writes() == expected


def test_lost_events_are_made_up_for_by_the_next_listing(
    demo: Objects, proxy: FaultProxy, watching: OperatorProcess
) -> None:
    demo.create()
    proxy.alter = lambda path, event: b""
    demo.plane.patch(demo.path, {"spec": {"drainSeconds": 40}})
    demo.plane.delete(demo.children["Service"])
    demo.plane.patch(demo.children["Deployment"], {"spec": {"replicas": 7}})

    # One comes half a minute after the start.
    eventually(lambda: demo.child("Service"), 60)

    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 1)
    eventually(lambda: demo.get()["status"]["observedGeneration"] == 2)
    assert watching.running()
