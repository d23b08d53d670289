"""How a rollout goes, from what is asked for and what is there."""

from typing import Any

import pytest

from builders import make_deployment, make_pod, make_reranker
from rerank_operator.api import Manifest
from rerank_operator.observed import Observed
from rerank_operator.resources.strategy import build_strategy

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
# A pod of the new template is there beside those of the old one.
ROLLING = {"replicas": 2, "updatedReplicas": 1}
STARTING = {"availableReplicas": 0}


def pods(placed: int, waiting: int = 0) -> list[Manifest]:
    return [make_pod(ready=True)] * placed + [make_pod(unschedulable=NO_GPU)] * waiting


def down(
    deployment: Manifest | None = None,
    pods: list[Manifest] | None = None,
    short: bool = False,
    **spec: Any,
) -> int:
    """Return how many pods may be down in place; 0 for a surge."""
    strategy = build_strategy(make_reranker(**spec), Observed(deployment, pods or [], short))
    numbers: dict[str, int] = strategy["rollingUpdate"]
    assert numbers["maxSurge"] == (0 if numbers["maxUnavailable"] else 1)
    return numbers["maxUnavailable"]


@pytest.mark.parametrize(("mode", "number"), [("Auto", 0), ("Surge", 0), ("InPlace", 1)])
def test_mode_decides_while_nothing_is_there(mode: str, number: int) -> None:
    assert down(rollout=mode) == number
    assert down(make_deployment(), pods(1), rollout=mode) == number


@pytest.mark.parametrize(("mode", "number"), [("Auto", 1), ("Surge", 0)])
def test_only_auto_gives_a_surge_up_that_lacks_room(mode: str, number: int) -> None:
    assert down(make_deployment(**ROLLING), pods(1, waiting=1), short=True, rollout=mode) == number


def test_auto_surges_while_there_may_be_room() -> None:
    assert down(make_deployment(**ROLLING), pods(1, waiting=1), short=False) == 0


def test_switched_rollout_stays_so_until_all_pods_serve() -> None:
    assert down(make_deployment(down=1, **ROLLING), pods(1, waiting=1)) == 1
    assert down(make_deployment(down=1, **STARTING), pods(1)) == 1
    assert down(make_deployment(down=1), pods(1)) == 0


def test_switched_rollout_outlives_a_change_that_the_controller_has_not_seen() -> None:
    assert down(make_deployment(down=1, generation=2, observed=1), pods(1)) == 1


def test_surge_ends_a_switched_rollout_at_once() -> None:
    assert down(make_deployment(down=1, **ROLLING), pods(1, waiting=1), rollout="Surge") == 0


def test_in_place_takes_over_a_rollout_that_began_as_a_surge() -> None:
    assert down(make_deployment(**ROLLING), pods(1, waiting=1), rollout="InPlace") == 1


@pytest.mark.parametrize("mode", ["Auto", "InPlace"])
def test_pods_beyond_the_gpus_do_not_use_up_what_may_be_down(mode: str) -> None:
    """Three wanted and two GPUs: one old pod has to go, although one is missing already."""
    rolling = make_deployment(3, replicas=4, updatedReplicas=1, availableReplicas=2)

    assert down(rolling, pods(2, waiting=2), short=True, rollout=mode, replicas=3) == 2


@pytest.mark.parametrize("mode", ["Auto", "InPlace"])
def test_pods_that_load_use_up_what_may_be_down(mode: str) -> None:
    """Else one node's failure and a change would take the last pods that serve."""
    rolling = make_deployment(3, replicas=4, updatedReplicas=1, availableReplicas=1)
    loading = [make_pod({"running": {}})] * 2

    assert down(rolling, pods(1, waiting=1) + loading, short=True, rollout=mode, replicas=3) == 1


def test_scaling_during_a_rollout_in_place_moves_no_pod_that_serves() -> None:
    rolling = make_deployment(3, down=1, replicas=3, updatedReplicas=1)

    assert down(rolling, pods(3), replicas=5) == 3
    assert down(rolling, pods(3), replicas=1) == 1


def test_scaled_up_after_a_rollout_in_place_counts_what_waits() -> None:
    grown = make_deployment(5, down=1, availableReplicas=3)

    assert down(grown, pods(3, waiting=2), replicas=5) == 3


def test_no_pods_wanted_is_a_valid_strategy() -> None:
    assert down(make_deployment(0, down=1), rollout="InPlace", replicas=0) == 1
    assert down(make_deployment(0), rollout="Auto", replicas=0) == 0


def test_percentage_of_somebody_elses_is_no_switched_rollout() -> None:
    deployment = make_deployment(**ROLLING)
    deployment["spec"]["strategy"]["rollingUpdate"] = {"maxSurge": 0, "maxUnavailable": "25%"}

    assert down(deployment, pods(1)) == 0
