"""A Secret that is not there yet keeps pods waiting, aloud, and they start once it is."""

from collections.abc import Iterator

import pytest

from lab.demo import SAMPLE
from lab.observe import children, eventually, told
from lab.target import Target

AUTH = "spec:\n  auth:\n    tokenSecretRef: {name: late, key: api}\n"


@pytest.fixture
def guarded(kube: Target, namespace: str) -> Iterator[str]:
    """The name of a RerankerService whose token's Secret is not there."""
    where = f"--namespace={namespace}"
    text = SAMPLE.read_text().replace("name: demo", "name: guarded").replace("spec:\n", AUTH, 1)
    kube.kubectl("apply", where, "-f", "-", stdin=text)
    yield "guarded"
    kube.kubectl("delete", "rerankerservice", "guarded", where)
    kube.kubectl("delete", "secret", "late", where, "--ignore-not-found")
    eventually(lambda: not children(kube, "guarded", namespace), "its children are gone")


def test_late_secret_is_waited_for_by_name_and_key(
    kube: Target, namespace: str, guarded: str
) -> None:
    where = f"--namespace={namespace}"

    def missing(words: str) -> bool:
        reason, message = told(kube, guarded, namespace)
        return reason == "SecretNotFound" and words in message

    eventually(lambda: missing("there is no Secret late"), "the Secret is named")
    kube.kubectl("create", "secret", "generic", "late", "--from-literal=other=x", where)
    eventually(lambda: missing("Secret late has no key api"), "the key is named", 120)
    kube.kubectl("patch", "secret", "late", where, "-p", '{"stringData": {"api": "x"}}')

    eventually(
        lambda: told(kube, guarded, namespace)[0] in ("LoadingModel", "AllPodsReady"),
        "the pod starts by itself",
        120,
    )
