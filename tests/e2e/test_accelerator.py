"""A service that waits for an accelerator says so, and goes on when there is one."""

from collections.abc import Callable, Iterator

import pytest

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
def waiting(kube: Target, namespace: str, gpus: Callable[[int], None]) -> Iterator[str]:
    """The name of a RerankerService that asks for a GPU on a cluster without any."""
    kube.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=OBJECT)
    yield "gpu"
    kube.kubectl("delete", "rerankerservice", "gpu", f"--namespace={namespace}")
    eventually(lambda: not children(kube, "gpu", namespace), "its children are gone")


def test_waits_for_a_gpu_and_says_so(
    kube: Target, namespace: str, waiting: str, gpus: Callable[[int], None]
) -> None:
    def reason() -> str:
        return told(kube, waiting, namespace)[0]

    eventually(lambda: reason() == "WaitingForGPU", "the condition names the GPU")
    gpus(1)

    eventually(lambda: reason() not in ("WaitingForGPU", ""), "the pod is scheduled")
