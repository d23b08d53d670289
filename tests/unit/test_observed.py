"""What observed objects say."""

import pytest

from builders import make_deployment, make_pod
from rerank_operator.api import Manifest
from rerank_operator.observed import is_rolled_out, lacks_room

NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: none"
ROLLING = {"replicas": 2, "updatedReplicas": 1}
WAITING = make_pod(unschedulable=NO_GPU)
SERVING = make_pod(ready=True)


def test_rollout_without_a_free_gpu_lacks_room() -> None:
    assert lacks_room(make_deployment(**ROLLING), [SERVING, WAITING])


def test_rollout_over_a_quota_lacks_room() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: gpus"}
    deployment = make_deployment(replicas=1, updatedReplicas=0, conditions=[refused])

    assert lacks_room(deployment, [SERVING])


def preempting() -> Manifest:
    pod = make_pod(unschedulable=NO_GPU)
    pod["status"]["nominatedNodeName"] = "node-1"
    return pod


@pytest.mark.parametrize(
    ("what", "deployment", "pods"),
    [
        ("no Deployment", None, [WAITING]),
        ("no pods of an earlier template", make_deployment(), [WAITING]),
        ("counts of before the change", make_deployment(generation=2, **ROLLING), [WAITING]),
        ("no pod waits", make_deployment(**ROLLING), [SERVING, make_pod({"running": {}})]),
        (
            "a pod that ends makes room",
            make_deployment(**ROLLING),
            [WAITING, make_pod(ready=True, deletionTimestamp="now")],
        ),
        (
            "the pod that waits is to go",
            make_deployment(**ROLLING),
            [SERVING, make_pod(unschedulable=NO_GPU, deletionTimestamp="now")],
        ),
        ("others are preempted for it", make_deployment(**ROLLING), [SERVING, preempting()]),
        (
            "no device is short",
            make_deployment(**ROLLING),
            [SERVING, make_pod(unschedulable="0/1 nodes are available: 1 Insufficient cpu.")],
        ),
    ],
)
def test_has_room_or_will_have(
    what: str, deployment: Manifest | None, pods: list[Manifest]
) -> None:
    assert not lacks_room(deployment, pods), what


def test_rolled_out_is_all_pods_new_and_available() -> None:
    assert is_rolled_out(make_deployment(2), 2)
    assert not is_rolled_out(make_deployment(2), 3)
    assert not is_rolled_out(make_deployment(2, availableReplicas=1), 2)
