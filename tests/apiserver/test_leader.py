"""Two operators and one Lease."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import Objects
from apiserver.operator_process import OperatorProcess

LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/rerank-system/leases/rerank-operator"

Pair = tuple[OperatorProcess, OperatorProcess]


@contextmanager
def edits(served: Objects) -> Iterator[None]:
    """Ask for something else several times a second, so that whoever may write does."""
    done = threading.Event()

    def edit() -> None:
        seconds = 0
        while not done.wait(0.2):
            seconds += 1
            served.plane.patch(served.path, {"spec": {"drainSeconds": seconds % 600}})

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def count(served: Objects, operator: OperatorProcess) -> int:
    """Return how often this operator has written in the namespace."""
    writers = [writer for writer, _, _ in served.plane.writers(served.namespace)]
    return writers.count(operator.identity)


def wait_for_writes(served: Objects, operator: OperatorProcess, seconds: float = 15) -> None:
    """Return once this operator has written a few times more."""
    enough = count(served, operator) + 5
    eventually(lambda: count(served, operator) >= enough, seconds)


def assert_one_at_a_time(served: Objects, first: OperatorProcess, second: OperatorProcess) -> None:
    """Check that the first had ended all its writes before the second began any."""
    writes = served.plane.writers(served.namespace)
    of_first = [end for writer, _, end in writes if writer == first.identity]
    of_second = [begin for writer, begin, _ in writes if writer == second.identity]
    assert of_first
    assert of_second
    assert max(of_first) < min(of_second)
    writers = [writer for writer, _, _ in sorted(writes, key=lambda write: write[1])]
    assert sum(one != other for one, other in pairwise(writers)) == 1


def test_second_operator_stands_by_ready_and_writes_nothing(pair: Pair, served: Objects) -> None:
    leader, other = pair

    with edits(served):
        wait_for_writes(served, leader)

    assert other.probe("readyz").status_code == 200
    assert other.probe("healthz").status_code == 200
    assert (leader.leads(), other.leads()) == (True, False)
    assert count(served, other) == 0


def test_killed_leader_is_replaced_within_17_seconds(pair: Pair, served: Objects) -> None:
    leader, other = pair

    with edits(served):
        wait_for_writes(served, leader)
        leader.signal(signal.SIGKILL)
        killed = time.monotonic()
        eventually(lambda: count(served, other), seconds=17)
        assert time.monotonic() - killed < 17

    assert other.leads()
    assert_one_at_a_time(served, leader, other)


def test_leader_that_is_told_to_end_is_replaced_at_once(pair: Pair, served: Objects) -> None:
    leader, other = pair

    with edits(served):
        wait_for_writes(served, leader)
        leader.signal(signal.SIGTERM)
        eventually(lambda: count(served, other), seconds=5)

    assert leader.exit_code() == 0
    assert_one_at_a_time(served, leader, other)


def test_leader_that_was_stopped_writes_no_more_and_ends(pair: Pair, served: Objects) -> None:
    leader, other = pair

    with edits(served):
        wait_for_writes(served, leader)
        leader.signal(signal.SIGSTOP)
        wait_for_writes(served, other, seconds=30)
        leader.signal(signal.SIGCONT)
        code = leader.exit_code()
        wait_for_writes(served, other)

    assert code == 1
    assert any(record["message"] == "lease lost" for record in leader.records())
    assert_one_at_a_time(served, leader, other)


def test_lease_in_other_hands_ends_the_process(pair: Pair, own: ControlPlane) -> None:
    leader, other = pair

    other.signal(signal.SIGSTOP)
    own.patch(LEASE_PATH, {"spec": {"holderIdentity": "somebody"}})

    assert leader.exit_code(10) == 1
    assert any("held by somebody" in record.get("error", "") for record in leader.records())
    other.signal(signal.SIGCONT)
