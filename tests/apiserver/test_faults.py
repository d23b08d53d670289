"""An API server that is away, silent or not complete."""

import os
import re
import time
from pathlib import Path

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess
from apiserver.proxy import Proxy

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"
Pair = tuple[OperatorProcess, OperatorProcess]
# How long the API server is away; more than the Lease lasts. OUTAGE_SECONDS=600 tries ten minutes.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "25"))


def replicas(served: Objects) -> int:
    """Return how many pods the Deployment asks for."""
    wanted: int = served.child("Deployment")["spec"]["replicas"]
    return wanted


def seconds_without_lease(operator: OperatorProcess) -> int:
    """Return for how long it says that it has had no word of the Lease; 0 when it is ready."""
    found = re.search(r"lease .* for (\d+) s", operator.probe("readyz").text)
    return int(found[1]) if found else 0


def assert_none_has_ended(pair: Pair) -> None:
    """Check that both processes are those of the start, well, and in the same roles as before."""
    assert [operator.running() for operator in pair] == [True, True]
    eventually(lambda: {one.probe("readyz").status_code for one in pair} == {200}, 60)
    eventually(lambda: {one.probe("healthz").status_code for one in pair} == {200})
    eventually(lambda: [operator.leads() for operator in pair] == [True, False])


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
    own: ControlPlane, pair: Pair, served: Objects
) -> None:
    own.kubectl("delete", "crd", "rerankerservices.rerank.dev")
    eventually(lambda: "is answered with 404" in pair[0].probe("readyz").text, 60)

    own.apply(CRD.read_text())
    other = Objects(own, served.namespace, "other")

    eventually(lambda: pair[0].probe("readyz").status_code == 200, 60)
    other.create()
    assert_none_has_ended(pair)


def test_absent_server_ends_nothing_and_nothing_is_lost(
    own: ControlPlane, pair: Pair, served: Objects
) -> None:
    own.stop()
    stopped = time.monotonic()
    eventually(lambda: all(seconds_without_lease(operator) > 20 for operator in pair), 60)
    health = {200}
    while time.monotonic() < stopped + OUTAGE_SECONDS:
        health |= {operator.probe("healthz").status_code for operator in pair}
        time.sleep(1)
    assert health == {200}
    assert {operator.probe("readyz").status_code for operator in pair} == {503}
    assert not pair[0].leads()
    own.start()
    own.patch(served.path, {"spec": {"replicas": 2}})

    eventually(lambda: replicas(served) == 2, 60)

    assert_none_has_ended(pair)
    errors = [r for operator in pair for r in operator.records() if r["level"] == "ERROR"]
    assert errors == []


def test_what_happens_while_the_operators_are_cut_off_is_made_up_for(
    own: ControlPlane, wire: Proxy, pair: Pair, served: Objects
) -> None:
    gone, new = Objects(own, served.namespace, "gone"), Objects(own, served.namespace, "new")
    gone.create()
    wire.cut()
    own.patch(served.path, {"spec": {"replicas": 3}})
    own.delete(served.children["Service"])
    own.delete(gone.path)
    new.ask()
    eventually(lambda: not pair[0].leads(), 60)

    wire.mend()

    eventually(
        lambda: replicas(served) == 3 and served.child("Service") and new.child("Service"), 60
    )
    eventually(lambda: new.get().get("status"))
    own.delete(gone.children["Service"])
    assert_none_has_ended(pair)
    # No garbage collector runs here. What is deleted of a service that is gone stays so.
    assert gone.child("Service") == {}


def test_etcd_that_is_away_for_a_while_ends_nothing_and_nothing_is_lost(
    own: ControlPlane, pair: Pair, served: Objects
) -> None:
    own.stop_etcd()
    eventually(lambda: not pair[0].leads(), 60)
    own.start_etcd()
    eventually(lambda: own.http.get("/readyz").status_code == 200, 60)
    eventually(lambda: own.get(served.path), 60)

    own.patch(served.path, {"spec": {"replicas": 2}})

    eventually(lambda: replicas(served) == 2, 60)
    assert_none_has_ended(pair)


def test_silent_watch_is_made_up_for_by_the_next_listing(
    own: ControlPlane, wire: Proxy, pair: Pair, served: Objects
) -> None:
    wire.freeze()
    own.patch(served.path, {"spec": {"replicas": 2}})

    # One comes half a minute after the start, and later ones each ten.
    eventually(lambda: replicas(served) == 2, 60)

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
