"""What keeps a service from being ready is told by its reason, and goes when it is corrected."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lab.observe import children, eventually, ready, told
from lab.target import Target

# What is wrong, the reason that says so, and words of its message.
TROUBLES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-image": ({"image": "registry.invalid/none:1"}, "ImagePullFailed", "registry.invalid/none"),
    "no-model": ({"model": {"name": "/models/none"}}, "CrashLooping", "/models/none"),
    "no-memory": (
        {"resources": {"requests": {"memory": "16Mi"}, "limits": {"memory": "16Mi"}}},
        "OutOfMemory",
        "resources.limits.memory",
    ),
    "no-node": (
        {"podTemplate": {"nodeSelector": {"pool": "none"}}},
        "Unschedulable",
        "didn't match Pod's node affinity/selector",
    ),
    "no-config": (
        {
            "podTemplate": {
                "env": [
                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}
                ]
            }
        },
        "ContainerRefused",
        'configmap "none" not found',
    ),
    "slow": (
        {"podTemplate": {"env": [{"name": "STANDIN_LOAD_SECONDS", "value": "3600"}]}},
        "LoadingModel",
        "is loading the model",
    ),
    "over-quota": (
        {"accelerator": {"resource": "example.com/npu"}},
        "QuotaExceeded",
        "exceeded quota: npus",
    ),
    "paused": ({"paused": True}, "Paused", "0 pods answer"),
    "name-taken": ({}, "NameConflict", "Service name-taken exists and does not belong"),
}


@pytest.fixture(scope="module")
def troubled(kube: Target, namespace: str, standin: str) -> Iterator[str]:
    """The image of RerankerServices that all have something wrong, each its own."""
    where = f"--namespace={namespace}"
    kube.kubectl("create", "quota", "npus", "--hard=requests.example.com/npu=0", where)
    kube.kubectl("create", "service", "clusterip", "name-taken", "--tcp=80", where)
    for name, (spec, _, _) in TROUBLES.items():
        ask(kube, namespace, name, {"image": standin} | spec)
    yield standin
    kube.kubectl("delete", "rerankerservices", *TROUBLES, where)
    kube.kubectl("delete", "quota", "npus", where)
    eventually(
        lambda: not any(children(kube, name, namespace) for name in TROUBLES),
        "their children are gone",
    )


def ask(kube: Target, namespace: str, name: str, spec: dict[str, Any]) -> None:
    body = {
        "apiVersion": "rerank.dev/v1alpha1",
        "kind": "RerankerService",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "/models/tiny-reranker"},
            "engine": {"maxModelLen": 512},
            "accelerator": {"resource": "none"},
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
            "drainSeconds": 0,
            **spec,
        },
    }
    kube.kubectl("apply", f"--namespace={namespace}", "-f", "-", stdin=yaml.safe_dump(body))


@pytest.mark.parametrize("name", TROUBLES)
def test_trouble_is_told_by_its_reason(
    kube: Target, namespace: str, troubled: str, name: str
) -> None:
    _, reason, words = TROUBLES[name]

    def is_told() -> bool:
        found = told(kube, name, namespace)
        return found[0] == reason and words in found[1]

    eventually(is_told, f"{reason}: {words}", 120)


def test_rollout_that_gets_nowhere_is_told_as_stuck(
    kube: Target, namespace: str, troubled: str
) -> None:
    """The deadline is half an hour. While it is paused, the operator lets it be made shorter."""
    where = f"--namespace={namespace}"
    eventually(lambda: told(kube, "slow", namespace)[0] == "LoadingModel", "it loads", 120)
    pause(kube, namespace, "slow", True)
    eventually(lambda: told(kube, "slow", namespace)[0] == "Paused", "it is paused")
    shorter = '{"spec": {"progressDeadlineSeconds": 1}}'
    kube.kubectl("patch", "deployment", "slow", where, "-p", shorter)
    overdue = "--for=condition=Progressing=False"
    kube.kubectl("wait", "deployment/slow", where, overdue, "--timeout=60s")

    pause(kube, namespace, "slow", False)

    eventually(lambda: told(kube, "slow", namespace)[0] == "RolloutStuck", "it is stuck")


def pause(kube: Target, namespace: str, name: str, paused: bool) -> None:
    patch = f'{{"spec": {{"paused": {str(paused).lower()}}}}}'
    where = f"--namespace={namespace}"
    kube.kubectl("patch", "rerankerservice", name, where, "--type=merge", "-p", patch)


def test_every_trouble_goes_when_it_is_corrected(
    kube: Target, namespace: str, troubled: str
) -> None:
    kube.kubectl("delete", "service", "name-taken", f"--namespace={namespace}")

    for name in TROUBLES:
        ask(kube, namespace, name, {"image": troubled})

    # For a name that is free again the operator looks after at most a minute.
    eventually(lambda: all(ready(kube, name, namespace) for name in TROUBLES), "all are Ready", 150)
