"""Real vLLM gets a second pod by its own speed, and loses no request on the way."""

import time
from collections.abc import Callable, Iterator

import pytest

from e2e.scaled import Scaled, assert_all_answered, scaled
from lab.load import Load, load_on
from lab.observe import eventually
from lab.target import Target

# Enough to have several seconds of work before a pod, on any machine that runs this.
CLIENTS = 16
DOCUMENTS = 100
# It loads the model beside the pod that is asked, on the same CPUs.
SECONDS = 600


@pytest.fixture
def service(kube: Target, namespace: str, with_keda: None) -> Iterator[Scaled]:
    """One of the small model that is part of the image, to be started."""
    spec = {
        "engine": {"dtype": "float32", "maxModelLen": 512},
        "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}},
    }
    with scaled(kube, namespace, "scaled-vllm", spec) as found:
        yield found


@pytest.fixture
def load(kube: Target, service: Scaled) -> Iterator[Load]:
    """Clients that ask it, none at first."""
    with load_on(kube, service.name, service.url, DOCUMENTS) as found:
        yield found


def test_second_pod_of_vllm_takes_load(
    service: Scaled, load: Load, report: Callable[[str], None]
) -> None:
    scaling = {"maxReplicas": 2, "scaleDownStabilizationSeconds": SECONDS}
    service.start(scaling, SECONDS)
    (old,) = service.pods()

    began = time.monotonic()
    load.clients(CLIENTS)
    eventually(lambda: service.replicas() == 2, "a second pod is wanted", 120)
    report(f"from load to a pod wanted {time.monotonic() - began:.1f} s")
    load.clients(1, pause_seconds=1)
    eventually(service.is_ready, "the second pod is ready", SECONDS)
    assert service.replicas() == 2
    report(f"ready {time.monotonic() - began:.1f} s, with little load meanwhile")
    load.clients(CLIENTS)
    service.wait_new(old)

    assert_all_answered(load, report)
