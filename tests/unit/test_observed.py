"""What observed objects say."""

import pytest

from builders import make_deployment, make_pod
from rerank_operator.api import Manifest
from rerank_operator.observed import is_rolled_out, lacks_room, waits_for_device

# As schedulers write; since 1.34 with a word on claims before that on preemption.
TAKEN = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
NO_GPU = f"0/1 nodes are available: 1 Insufficient nvidia.com/gpu. {TAKEN}"
NO_CPU = f"0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, {TAKEN}"
ROLLING = {"replicas": 2, "updatedReplicas": 1}
WAITING = make_pod(unschedulable=NO_GPU)
SERVING = make_pod(ready=True)


@pytest.mark.parametrize(
    "words",
    [
        NO_GPU,
        "0/4 nodes are available: 4 Insufficient nvidia.com/gpu. no new claims to deallocate, "
        "preemption: 0/4 nodes are available: 1 Insufficient nvidia.com/gpu, 3 Preemption is not "
        "helpful for scheduling.",
        "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) were unschedulable. "
        "preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, "
        "1 Preemption is not helpful for scheduling.",
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: not eligible due to "
        "preemptionPolicy=Never.",
        "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
    ],
)
def test_rollout_without_room_on_a_node_lacks_room(words: str) -> None:
    assert lacks_room(make_deployment(**ROLLING), [SERVING, make_pod(unschedulable=words)])


@pytest.mark.parametrize(
    ("words", "device"),
    [
        (NO_GPU, True),
        (NO_CPU, False),
        (f"0/1 nodes are available: 1 Insufficient cpu. {TAKEN}", False),
        (f"0/2 nodes are available: 1 Insufficient memory, 2 Insufficient x.io/y. {TAKEN}", True),
        ("0/2 nodes are available: 2 node(s) had untolerated taint {x.io/y: }.", False),
    ],
)
def test_device_that_is_short_is_told_by_its_slash(words: str, device: bool) -> None:
    assert waits_for_device(make_pod(unschedulable=words)) is device


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
            "the node with the GPUs is cordoned, others have none",
            make_deployment(**ROLLING),
            [
                SERVING,
                make_pod(
                    unschedulable="0/4 nodes are available: 1 node(s) were unschedulable, "
                    "3 Insufficient nvidia.com/gpu. preemption: 0/4 nodes are available: "
                    "4 Preemption is not helpful for scheduling."
                ),
            ],
        ),
        (
            "a node with more memory may come",
            make_deployment(**ROLLING),
            [SERVING, make_pod(unschedulable=NO_CPU)],
        ),
        (
            "nothing is short",
            make_deployment(**ROLLING),
            [
                SERVING,
                make_pod(
                    unschedulable="0/1 nodes are available: 1 node(s) didn't match Pod's node "
                    f"affinity/selector. {TAKEN}"
                ),
            ],
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
