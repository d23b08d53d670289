"""Two operators and one Lease, on a control plane of their own."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess

LEASE = "rerank-system/rerank-operator"
LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/rerank-system/leases/rerank-operator"
LEADS = f'leader_election_master_status{{name="{LEASE}"}}'

Pair = tuple[OperatorProcess, OperatorProcess]


@pytest.fixture
def pair(own: ControlPlane) -> Iterator[Pair]:
    """Two operators; the first leads, the second stands by and is ready."""
    leader, other = (OperatorProcess(own, lease=LEASE) for _ in range(2))
    try:
        leader.start()
        eventually(lambda: leader.metric(LEADS) == 1)
        other.start()
        yield leader, other
    finally:
        for operator in (leader, other):
            operator.stop()


@pytest.fixture
def demo(own: ControlPlane, pair: Pair) -> Objects:
    """A RerankerService with all its children."""
    demo = Objects(own, "default")
    demo.create()
    return demo


@contextmanager
def edits(demo: Objects) -> Iterator[None]:
    """Ask for something else several times a second, so that whoever may write does."""
    done = threading.Event()

    def edit() -> None:
        seconds = 0
        while not done.wait(0.2):
            seconds += 1
            demo.plane.patch(demo.path, {"spec": {"drainSeconds": seconds % 600}})

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def count(demo: Objects, operator: OperatorProcess) -> int:
    """Return how often this operator has written in the namespace."""
    writers = [writer for writer, _, _ in demo.plane.writers(demo.namespace)]
    return writers.count(operator.identity)


def wait_for_writes(demo: Objects, operator: OperatorProcess, seconds: float = 15) -> None:
    """Return once this operator has written a few times more."""
    enough = count(demo, operator) + 5
    eventually(lambda: count(demo, operator) >= enough, seconds)


def assert_one_at_a_time(demo: Objects, first: OperatorProcess, second: OperatorProcess) -> None:
    """Check that the first had ended all its writes before the second began any."""
    writes = demo.plane.writers(demo.namespace)
    of_first = [end for writer, _, end in writes if writer == first.identity]
    of_second = [begin for writer, begin, _ in writes if writer == second.identity]
    assert of_first
    assert of_second
    assert max(of_first) < min(of_second)
    writers = [writer for writer, _, _ in sorted(writes, key=lambda write: write[1])]
    assert sum(one != other for one, other in pairwise(writers)) == 1


def test_second_operator_stands_by_ready_and_writes_nothing(pair: Pair, demo: Objects) -> None:
    leader, other = pair

    with edits(demo):
        wait_for_writes(demo, leader)

    assert other.probe("readyz").status_code == 200
    assert other.probe("healthz").status_code == 200
    assert (leader.metric(LEADS), other.metric(LEADS)) == (1, 0)
    assert count(demo, other) == 0


def test_killed_leader_is_replaced_within_17_seconds(pair: Pair, demo: Objects) -> None:
    leader, other = pair

    with edits(demo):
        wait_for_writes(demo, leader)
        leader.signal(signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: count(demo, other), seconds=17)
        assert time.monotonic() - killed < 17

    assert other.metric(LEADS) == 1
    assert_one_at_a_time(demo, leader, other)


def test_leader_that_is_told_to_end_is_replaced_at_once(pair: Pair, demo: Objects) -> None:
    leader, other = pair

    with edits(demo):
        wait_for_writes(demo, leader)
        leader.signal(signal.SIGTERM)
        eventually(lambda: count(demo, other), seconds=5)

    assert leader.exit_code() == 0
    assert_one_at_a_time(demo, leader, other)


def test_leader_that_was_stopped_writes_no_more_and_ends(pair: Pair, demo: Objects) -> None:
    leader, other = pair

    with edits(demo):
        wait_for_writes(demo, leader)
        leader.signal(signal.SIGSTOP)
        wait_for_writes(demo, other, seconds=30)
        leader.signal(signal.SIGCONT)
        code = leader.exit_code()
        wait_for_writes(demo, other)

    assert code == 1
    assert any(record["message"] == "lease lost" for record in leader.records())
    assert_one_at_a_time(demo, leader, other)


def test_lease_in_other_hands_ends_the_process(pair: Pair, own: ControlPlane) -> None:
    leader, other = pair

    other.signal(signal.SIGSTOP)
    own.patch(LEASE_PATH, {"spec": {"holderIdentity": "somebody"}})

    assert leader.exit_code(10) == 1
    assert any("held by somebody" in record.get("error", "") for record in leader.records())
    other.signal(signal.SIGCONT)
