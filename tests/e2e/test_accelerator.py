"""A service that waits for an accelerator says so, and goes on when there is one."""

from collections.abc import Iterator

import pytest

from lab import cluster
from lab.observe import children, eventually, told
from lab.target import Target

# The image matters not: what is asked here is answered before a container starts.
OBJECT = """
apiVersion: rerank.dev/v1alpha1
kind: RerankerService
metadata: {name: gpu}
spec:
  model: {name: Qwen/Qwen3-Reranker-0.6B}
  image: python:3.12-slim
"""


@pytest.fixture
def waiting(kube: Target, namespace: str) -> Iterator[str]:
    """The name of a RerankerService that asks for a GPU on a cluster without any."""
    if not kube.audit_log:
        pytest.skip("another cluster's node is not ours to patch")
    kube.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=OBJECT)
    yield "gpu"
    kube.kubectl("delete", "rerankerservice", "gpu", f"--namespace={namespace}")
    eventually(lambda: not children(kube, "gpu", namespace), "its children are gone")
    cluster.advertise_gpus(0)


def test_waits_for_a_gpu_and_says_so(kube: Target, namespace: str, waiting: str) -> None:
    def reason() -> str:
        return told(kube, waiting, namespace)[0]

    eventually(lambda: reason() == "WaitingForGPU", "the condition names the GPU")
    cluster.advertise_gpus(1)

    eventually(lambda: reason() not in ("WaitingForGPU", ""), "the pod is scheduled")
