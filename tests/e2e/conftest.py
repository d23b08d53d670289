"""The lab, the chart installed on it, and one RerankerService that serves."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import cluster, images, keda, node, target
from lab.demo import SAMPLE, wait_ready
from lab.leftovers import leftovers
from lab.observe import children, eventually, ready
from lab.report import say
from lab.target import NAMESPACE, RELEASE, Target

TEST_NAMESPACE = "rerank-e2e"
OURS = (
    ("crd", "rerankerservices.rerank.dev"),
    ("namespace", NAMESPACE),
    ("namespace", TEST_NAMESPACE),
)


@pytest.fixture(scope="session")
def kube() -> Iterator[Target]:
    """A cluster with the chart of this checkout installed; a lab started for it is ended after."""
    ours = node.running() is None
    found = target.prepare()
    # Deleted again at the end, with all that is in them: so they must not be somebody's.
    for kind, name in OURS:
        if found.kubectl("get", kind, name, "--ignore-not-found"):
            pytest.fail(f"the cluster has a {kind} {name} already: `make demo-down`, or delete it")
    try:
        found.install()
        yield found
        # Before its namespace, which would be looked at again only after half the grace period.
        here = f"--namespace={TEST_NAMESPACE}"
        found.kubectl("delete", "rerankerservices", "--all", here)
        found.kubectl("wait", "pods", "--all", here, "--for=delete", "--timeout=120s")
        found.kubectl("delete", "namespace", TEST_NAMESPACE, "--ignore-not-found")
        found.helm("uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait")
        for kind, name in OURS:
            found.kubectl("delete", kind, name, "--ignore-not-found")
    finally:
        if ours and found.audit_log:
            cluster.down()
            assert leftovers() == []


@pytest.fixture(scope="session")
def namespace(kube: Target) -> str:
    """A namespace that takes only pods of the standard "restricted"."""
    kube.kubectl("create", "namespace", TEST_NAMESPACE)
    labels = ["pod-security.kubernetes.io/enforce=restricted"]
    kube.kubectl("label", "namespace", TEST_NAMESPACE, *labels)
    return TEST_NAMESPACE


@pytest.fixture(scope="session")
def served(kube: Target, namespace: str) -> str:
    """The name of a RerankerService that is Ready: the demo's, with the model in the image."""
    kube.kubectl("apply", f"--namespace={namespace}", "-f", str(SAMPLE))
    wait_ready(kube, "demo", namespace, seconds=300)
    return "demo"


@pytest.fixture(scope="session")
def standin(kube: Target) -> str:
    """An image of the server that loads in a moment and ranks nothing right: no vLLM is in it."""
    if not kube.audit_log:
        pytest.skip("the image of the stand-in is built for the lab alone")
    folder = Path(__file__).parent
    base = f"BASE={kube.server_image}"
    recipe = folder / "standin.Dockerfile"
    image = images.build(images.Image("localhost/rerank-standin", recipe, folder.parent, (base,)))
    images.load(image)
    return image


@pytest.fixture
def gpus(kube: Target) -> Iterator[Callable[[int], None]]:
    """Sets the number of the node's GPUs; none after."""
    if not kube.audit_log:
        pytest.skip("another cluster's node is not ours to patch")
    yield cluster.advertise_gpus
    cluster.advertise_gpus(0)


@pytest.fixture(scope="session")
def with_keda(kube: Target) -> None:
    """KEDA and Prometheus beside the operator, which was there before them."""
    if not kube.audit_log:
        pytest.skip("KEDA is stopped on the way, which another cluster's is not for")
    keda.install()


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure for docs/performance.md, whether or not the test passes."""

    def print_it(text: str) -> None:
        with capsys.disabled():
            print()
            say(text)

    return print_it


@pytest.fixture
def idle(kube: Target, namespace: str) -> Iterator[str]:
    """The name of a RerankerService without pods, for what needs no answer; deleted after."""
    name = "idle"
    text = SAMPLE.read_text().replace("name: demo", f"name: {name}")
    text = text.replace("replicas: 1", "replicas: 0")
    kube.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=text)
    eventually(lambda: ready(kube, name, namespace), "the idle service is Ready")
    yield name
    where = ["rerankerservice", name, f"--namespace={namespace}"]
    kube.kubectl("delete", *where, "--ignore-not-found")
    eventually(lambda: not children(kube, name, namespace), "its children are gone")
