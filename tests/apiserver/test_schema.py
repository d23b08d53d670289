"""What kubectl lets a user say, and how it answers a mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver.controlplane import ControlPlane
from builders import make_body

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
MODEL = {"name": "org/model"}


def manifest(**spec: Any) -> str:
    body = make_body(**spec)
    body["metadata"] = {"name": "demo"}
    return yaml.safe_dump(body)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_sample_is_accepted(plane: ControlPlane, namespace: str, sample: Path) -> None:
    answer = plane.apply(sample.read_text(), namespace)

    assert "created" in answer


def test_defaults_are_filled_in_at_every_depth(plane: ControlPlane, namespace: str) -> None:
    plane.apply(manifest(), namespace)

    path = f"/apis/rerank.dev/v1alpha1/namespaces/{namespace}/rerankerservices/demo"
    assert plane.get(path)["spec"] == {
        "model": {"name": "Qwen/Qwen3-Reranker-0.6B", "family": "auto"},
        "engine": {
            "dtype": "auto",
            "maxModelLen": 4096,
            "tensorParallelSize": 1,
            "gpuMemoryUtilization": 0.9,
        },
        "accelerator": {"resource": "nvidia.com/gpu"},
        "resources": {"requests": {}, "limits": {}},
        "replicas": 1,
        "drainSeconds": 60,
    }


WRONG = [
    ({"model": {}}, "spec.model.name: Required value"),
    ({"model": {"name": ""}}, "spec.model.name"),
    ({"model": {"name": "   "}}, "model.name is '   '"),
    ({"model": {"name": "no-organisation"}}, "model.name is 'no-organisation'"),
    ({"model": {"name": "a/b/c"}}, "model.name is 'a/b/c'"),
    ({"model": {"name": "org/../model"}}, "model.name is 'org/../model'"),
    ({"model": {"name": "/models/../etc"}}, "model.name is '/models/../etc'"),
    ({"model": {"name": "a/" + "b" * 300}}, "spec.model.name: Too long"),
    ({"model": MODEL | {"revision": "a b"}}, "spec.model.revision"),
    ({"model": MODEL | {"family": "gpt"}}, "spec.model.family: Unsupported value"),
    ({"replicas": -1}, "spec.replicas"),
    ({"replicas": 100000}, "spec.replicas"),
    ({"replicas": "two"}, "spec.replicas"),
    ({"drainSeconds": -1}, "spec.drainSeconds"),
    ({"image": "a b"}, "spec.image"),
    ({"engine": {"dtype": "float16"}}, "spec.engine.dtype: Unsupported value"),
    ({"engine": {"maxModelLen": 0}}, "spec.engine.maxModelLen"),
    ({"engine": {"gpuMemoryUtilization": 1.5}}, "spec.engine.gpuMemoryUtilization"),
    ({"engine": {"tensorParallelSize": 0}}, "spec.engine.tensorParallelSize"),
    ({"engine": {"instruction": "x" * 5000}}, "spec.engine.instruction: Too long"),
    ({"accelerator": {"resource": "gpu"}}, "spec.accelerator.resource"),
    (
        {"accelerator": {"count": 1}, "engine": {"tensorParallelSize": 2}},
        "accelerator.count is 1 but engine.tensorParallelSize is 2: raise count",
    ),
    (
        {"accelerator": {"resource": "none", "count": 2}},
        "accelerator.count is 2 but accelerator.resource is none: leave count out",
    ),
    (
        {"accelerator": {"resource": "none"}, "engine": {"tensorParallelSize": 2}},
        "engine.tensorParallelSize is 2 but accelerator.resource is none: set it to 1",
    ),
    (
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        "resources holds nvidia.com/gpu: ask for it with accelerator.count",
    ),
    ({"resources": {"requests": {"cpu": "two"}}}, "spec.resources.requests.cpu"),
    ({"resources": {"requests": {"cpu": -1}}}, "spec.resources.requests.cpu"),
    ({"resources": {"limits": {"cpu": "1e30"}}}, "spec.resources.limits.cpu"),
    ({"resources": {"limits": {"memory": "8Ei"}}}, "spec.resources.limits.memory"),
    ({"modle": {}}, 'unknown field "spec.modle"'),
    ({"engine": {"maxLen": 5}}, 'unknown field "spec.engine.maxLen"'),
]


@pytest.mark.parametrize(("spec", "message"), WRONG, ids=[message for _, message in WRONG])
def test_mistake_is_refused_by_name(
    plane: ControlPlane, namespace: str, spec: dict[str, Any], message: str
) -> None:
    answer = plane.apply(manifest(**spec), namespace, check=False)

    assert message in answer
    assert "created" not in answer


@pytest.mark.parametrize(
    "spec",
    [
        {"model": {"name": "BAAI/bge-reranker-v2-m3", "revision": "refs/pr/1"}},
        {"model": {"name": "/models/a.b_c-d/e"}},
        {"resources": {"requests": {"cpu": 1, "memory": "1.5Gi"}, "limits": {"cpu": "500m"}}},
        {"accelerator": {"resource": "nvidia.com/mig-1g.10gb", "count": 2}},
        {"replicas": 0},
    ],
    ids=str,
)
def test_unusual_but_right_is_accepted(
    plane: ControlPlane, namespace: str, spec: dict[str, Any]
) -> None:
    assert "created" in plane.apply(manifest(**spec), namespace)


def test_columns_tell_the_model_and_how_it_is(plane: ControlPlane, namespace: str) -> None:
    plane.apply(manifest(), namespace)

    header = plane.kubectl("get", "rrs", "-n", namespace).splitlines()[0].split()

    assert header == [
        "NAME",
        "MODEL",
        "REPLICAS",
        "SERVING",
        "READY",
        "REASON",
        "URL",
        "AGE",
    ]
