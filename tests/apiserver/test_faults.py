"""An API server that is away, silent or not complete, on a control plane of its own."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from apiserver.proxy import Proxy, start_proxy

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"
LEASE = "rerank-system/rerank-operator"
LEADS = f'leader_election_master_status{{name="{LEASE}"}}'


@pytest.fixture
def wire(own: ControlPlane) -> Iterator[Proxy]:
    """The connections of the operators, and of nobody else."""
    with start_proxy(own) as proxy:
        yield proxy


@pytest.fixture
def pair(own: ControlPlane, wire: Proxy) -> Iterator[list[OperatorProcess]]:
    """Two operators at the end of the wire; the first leads."""
    operators = [OperatorProcess(own, kubeconfig=wire.kubeconfig, lease=LEASE) for _ in range(2)]
    try:
        operators[0].start()
        eventually(lambda: operators[0].metric(LEADS) == 1)
        operators[1].start()
        yield operators
    finally:
        for operator in operators:
            operator.stop()


@pytest.fixture
def demo(own: ControlPlane, pair: list[OperatorProcess]) -> Objects:
    """A RerankerService with all its children."""
    demo = Objects(own, "default")
    demo.create()
    return demo


def replicas(demo: Objects) -> int:
    """Return how many pods the Deployment asks for."""
    wanted: int = demo.child("Deployment")["spec"]["replicas"]
    return wanted


def assert_none_has_ended(pair: list[OperatorProcess]) -> None:
    """Check that both processes are those of the start, well, and in the same roles as before."""
    assert [operator.running() for operator in pair] == [True, True]
    eventually(lambda: {one.probe("readyz").status_code for one in pair} == {200}, 60)
    eventually(lambda: {one.probe("healthz").status_code for one in pair} == {200})
    eventually(lambda: [operator.metric(LEADS) for operator in pair] == [1, 0])


def test_definition_that_comes_late_is_waited_for(bare: ControlPlane) -> None:
    operator = OperatorProcess(bare)
    demo = Objects(bare, "default")
    operator.launch()
    try:
        eventually(lambda: any(r["message"] == "cannot list" for r in operator.records()), 60)
        assert operator.probe("healthz").status_code == 200
        assert operator.probe("readyz").status_code == 503

        bare.apply(CRD.read_text())

        operator.wait()
        demo.create()
    finally:
        operator.stop()


def test_definition_that_goes_and_comes_back_ends_nothing(
    own: ControlPlane, pair: list[OperatorProcess], demo: Objects
) -> None:
    own.kubectl("delete", "crd", "rerankerservices.rerank.dev")
    eventually(lambda: "is answered with 404" in pair[0].probe("readyz").text, 60)

    own.apply(CRD.read_text())
    other = Objects(own, "default", "other")

    eventually(lambda: pair[0].probe("readyz").status_code == 200, 60)
    other.create()
    assert_none_has_ended(pair)


def test_absent_server_ends_nothing_and_nothing_is_lost(
    own: ControlPlane, pair: list[OperatorProcess], demo: Objects
) -> None:
    own.stop()
    # Longer than the Lease lasts; from here on more of the same happens for as long as it takes.
    eventually(lambda: pair[0].metric(LEADS) == 0, 60)
    eventually(lambda: all(one.probe("readyz").status_code == 503 for one in pair))
    time.sleep(10)
    assert all(operator.probe("healthz").status_code == 200 for operator in pair)
    own.start()
    own.patch(demo.path, {"spec": {"replicas": 2}})

    eventually(lambda: replicas(demo) == 2, 60)

    assert_none_has_ended(pair)
    errors = [r for operator in pair for r in operator.records() if r["level"] == "ERROR"]
    assert errors == []


def test_what_happens_while_the_operators_are_cut_off_is_made_up_for(
    own: ControlPlane, wire: Proxy, pair: list[OperatorProcess], demo: Objects
) -> None:
    gone, new = Objects(own, "default", "gone"), Objects(own, "default", "new")
    gone.create()
    wire.cut()
    own.patch(demo.path, {"spec": {"replicas": 3}})
    own.delete(demo.children["Service"])
    own.delete(gone.path)
    new.ask()
    eventually(lambda: pair[0].metric(LEADS) == 0, 60)

    wire.mend()

    eventually(lambda: replicas(demo) == 3 and demo.child("Service") and new.child("Service"), 60)
    eventually(lambda: new.get()["status"])
    own.delete(gone.children["Service"])
    assert_none_has_ended(pair)
    # No garbage collector runs here. What is deleted of a service that is gone stays so.
    assert gone.child("Service") == {}


def test_etcd_that_is_away_for_a_while_ends_nothing_and_nothing_is_lost(
    own: ControlPlane, pair: list[OperatorProcess], demo: Objects
) -> None:
    own.stop_etcd()
    eventually(lambda: pair[0].metric(LEADS) == 0, 60)
    own.start_etcd()
    eventually(lambda: own.http.get("/readyz").status_code == 200, 60)
    eventually(lambda: own.get(demo.path), 60)

    own.patch(demo.path, {"spec": {"replicas": 2}})

    eventually(lambda: replicas(demo) == 2, 60)
    assert_none_has_ended(pair)


def test_silent_watch_is_made_up_for_by_the_next_listing(
    own: ControlPlane, wire: Proxy, pair: list[OperatorProcess], demo: Objects
) -> None:
    wire.freeze()
    own.patch(demo.path, {"spec": {"replicas": 2}})

    # One comes half a minute after the start, and later ones each ten.
    eventually(lambda: replicas(demo) == 2, 60)

    assert_none_has_ended(pair)


def test_silent_watch_is_opened_anew(own: ControlPlane, wire: Proxy) -> None:
    operator = OperatorProcess(own, kubeconfig=wire.kubeconfig)
    demo = Objects(own, "default")
    operator.start()
    try:
        demo.create()
        eventually(lambda: any(r["message"] == "listed again" for r in operator.records()), 60)
        wire.freeze()
        own.patch(demo.path, {"spec": {"replicas": 2}})

        # Bookmarks come each minute; without one kopf opens the watch anew after 70 s.
        eventually(lambda: replicas(demo) == 2, 90)

        assert operator.probe("healthz").status_code == 200
    finally:
        operator.stop()
