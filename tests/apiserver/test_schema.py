"""What kubectl lets a user say, and how it answers a mistake."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver.controlplane import ControlPlane, eventually
from builders import make_body
from fields import schema_paths

SAMPLES = Path(__file__).parents[2] / "manifests" / "samples"
MODEL = {"name": "org/model"}
PROMETHEUS = {"prometheus": {"serverAddress": "http://prometheus:9090"}}


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
        "model": {
            "name": "Qwen/Qwen3-Reranker-0.6B",
            "family": "auto",
            "strictName": False,
            "trustRemoteCode": False,
        },
        "engine": {
            "dtype": "auto",
            "maxModelLen": 4096,
            "tensorParallelSize": 1,
            "enginesPerGpu": 1,
            "gpuMemoryUtilization": 0.9,
            "scoreCheck": "warn",
        },
        "accelerator": {"resource": "nvidia.com/gpu"},
        "resources": {},
        "replicas": 1,
        "limits": {
            "maxDocuments": 1000,
            "maxDocumentChars": 100000,
            "maxQueryChars": 20000,
            "maxBodyBytes": 16777216,
            "maxQueuedPairs": 4096,
            "truncate": True,
        },
        "rollout": "Auto",
        "drainSeconds": 60,
        "auth": {},
        "ui": {"enabled": False},
        "networkPolicy": {"enabled": False},
        "monitoring": {"podMonitor": False},
        "podTemplate": {},
        "paused": False,
    }


def test_explain_knows_every_field(plane: ControlPlane) -> None:
    def explained() -> str:
        return plane.kubectl("explain", "rerankerservice.spec", "--recursive")

    names = {path.rpartition(".")[2].removesuffix("[]") for path in schema_paths()}

    assert names <= set(eventually(explained, 30).split())
    assert "so that a new one can come" in plane.kubectl(
        "explain", "rerankerservice.spec.auth.tokenSecretRef"
    )


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": {}}, "spec.model.name: Required value"),
    ({"model": {"name": ""}}, "spec.model.name"),
    ({"model": {"name": "   "}}, "model.name is '   '"),
    ({"model": {"name": "no-organisation"}}, "model.name is 'no-organisation'"),
    ({"model": {"name": "a/b/c"}}, "model.name is 'a/b/c'"),
    ({"model": {"name": "org/../model"}}, "model.name is 'org/../model'"),
    ({"model": {"name": "/models/../etc"}}, "model.name is '/models/../etc'"),
    ({"model": {"name": "a/" + "b" * 300}}, "spec.model.name: Too long"),
    ({"model": MODEL | {"revision": "a b"}}, "model.revision is 'a b': write a branch"),
    ({"model": MODEL | {"family": "gpt"}}, "spec.model.family: Unsupported value"),
    (
        {"model": MODEL | {"hubEndpoint": "hub.example.com"}},
        "model.hubEndpoint is 'hub.example.com': write a URL",
    ),
    (
        {"model": MODEL | {"hubEndpoint": "https://user:secret@hub"}},
        "spec.model.hubEndpoint",
    ),
    ({"model": MODEL | {"tokenSecretRef": {}}}, "spec.model.tokenSecretRef.name: Required"),
    ({"auth": {"tokenSecretRef": {"name": "A b"}}}, "name is 'A b': write an object's name"),
    ({"auth": {"tokenSecretRef": {"name": "a", "key": "a/b"}}}, "key is 'a/b': write letters"),
    ({"replicas": -1}, "spec.replicas"),
    ({"replicas": 100000}, "spec.replicas"),
    ({"replicas": "two"}, "spec.replicas"),
    ({"drainSeconds": -1}, "spec.drainSeconds"),
    ({"image": "a b"}, "image is 'a b': write an image without spaces"),
    ({"engine": {"dtype": "float16"}}, "spec.engine.dtype: Unsupported value"),
    ({"engine": {"maxModelLen": 0}}, "spec.engine.maxModelLen"),
    ({"engine": {"gpuMemoryUtilization": 1.5}}, "spec.engine.gpuMemoryUtilization"),
    ({"engine": {"gpuMemoryUtilization": 0}}, "engine.gpuMemoryUtilization is below 0.05"),
    ({"engine": {"tensorParallelSize": 0}}, "spec.engine.tensorParallelSize"),
    ({"engine": {"enginesPerGpu": 9}}, "spec.engine.enginesPerGpu"),
    ({"engine": {"instruction": "x" * 5000}}, "spec.engine.instruction: Too long"),
    ({"engine": {"quantization": "int3"}}, "spec.engine.quantization: Unsupported value"),
    ({"engine": {"scoreCheck": "off"}}, "spec.engine.scoreCheck: Unsupported value"),
    *[
        ({"engine": {"extraArgs": {name: sample}}}, f"engine.extraArgs.{name} is set: leave it out")
        for name, sample in (("model", "x"), ("trust_remote_code", True), ("hf_overrides", {}))
    ],
    ({"engine": {"extraArgs": {"port": "80"}}}, "spec.engine.extraArgs.port"),
    ({"engine": {"extraArgs": []}}, "spec.engine.extraArgs"),
    ({"accelerator": {"resource": "gpu"}}, "accelerator.resource is 'gpu': write an extended"),
    ({"autoscaling": {}}, "spec.autoscaling.maxReplicas: Required value"),
    (
        {"autoscaling": {"minReplicas": 5, "maxReplicas": 4}},
        "autoscaling.minReplicas is 5 but autoscaling.maxReplicas is 4: lower the first",
    ),
    (
        {"autoscaling": {"minReplicas": 0, "maxReplicas": 4}},
        "nothing outside the pods tells when one is needed: set it to 1, or give",
    ),
    (
        {"autoscaling": {"type": "hpa", "minReplicas": 0, "maxReplicas": 4}},
        "autoscaling.minReplicas is 0",
    ),
    *[
        (
            {"autoscaling": {"maxReplicas": 4, "targetQueueDepth": value}},
            "autoscaling.targetQueueDepth is not valid: write auto, or a number from 1 to 1000000",
        )
        for value in (0, -1, 1000001, "64", "automatic")
    ],
    (
        {"autoscaling": {"maxReplicas": 4, "targetWaitSeconds": 0}},
        "autoscaling.targetWaitSeconds is below 0.05",
    ),
    (
        {"autoscaling": {"maxReplicas": 4, "prometheus": {"serverAddress": "prometheus:9090"}}},
        "autoscaling.prometheus.serverAddress is 'prometheus:9090': write a URL",
    ),
    (
        {"autoscaling": {"maxReplicas": 4, "type": "hpa"} | PROMETHEUS},
        "autoscaling.prometheus is for autoscaling.type keda",
    ),
    (
        {"autoscaling": {"maxReplicas": 4, "externalMetric": {"name": "queue"}}},
        "autoscaling.externalMetric is for autoscaling.type hpa",
    ),
    (
        {"autoscaling": {"maxReplicas": 4, "schedules": [{"start": "8:00", "end": "9:00"}]}},
        "start is '8:00': write five fields, such as 0 8 * * 1-5",
    ),
    ({"autoscaling": {"maxReplicas": 4, "schedules": []}}, "spec.autoscaling.schedules"),
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
        {"engine": {"enginesPerGpu": 4, "tensorParallelSize": 2}},
        "engine.enginesPerGpu is 4 and engine.tensorParallelSize is 2: a model that takes several",
    ),
    (
        {"resources": {"limits": {"nvidia.com/gpu": 1}}},
        "resources holds nvidia.com/gpu: ask for it with accelerator.count",
    ),
    ({"cache": {"size": "0"}}, "cache.size is 0: write how much"),
    ({"cache": {"size": 0}}, "cache.size is 0: write how much"),
    ({"cache": {"size": "much"}}, "spec.cache.size"),
    ({"cache": {"accessModes": []}}, "spec.cache.accessModes"),
    ({"cache": {"accessModes": ["ReadWriteOncePod"]}}, "spec.cache.accessModes[0]: Unsupported"),
    ({"cache": {"storageClassName": "A b"}}, "cache.storageClassName is 'A b': write an object's"),
    *[
        (
            {"cache": {"existingClaim": "models"} | other},
            "cache.existingClaim is models, beside size, storageClassName or accessModes",
        )
        for other in ({"size": 1}, {"storageClassName": "a"}, {"accessModes": ["ReadWriteMany"]})
    ],
    (
        {"cache": {}, "model": {"name": "/models/a"}},
        "model.name is /models/a, a directory, and cache has no existingClaim that could hold it",
    ),
    ({"resources": {"requests": {"cpu": "two"}}}, "spec.resources.requests.cpu"),
    ({"resources": {"requests": {"cpu": -1}}}, "spec.resources.requests.cpu"),
    ({"resources": {"limits": {"cpu": "1e30"}}}, "spec.resources.limits.cpu"),
    ({"resources": {"limits": {"memory": "8Ei"}}}, "spec.resources.limits.memory"),
    ({"limits": {"maxDocuments": 0}}, "spec.limits.maxDocuments"),
    ({"limits": {"maxBodyBytes": 1}}, "spec.limits.maxBodyBytes"),
    (
        {"limits": {"maxQueuedPairs": 10}},
        "limits.maxDocuments is 1000 but limits.maxQueuedPairs is 10",
    ),
    ({"limits": {"trustedProxies": ["10.0.0.1"]}}, "spec.limits.trustedProxies[0]"),
    ({"limits": {"blockedPatterns": ["a\nb"]}}, "write it in one line, without spaces"),
    ({"limits": {"blockedPatterns": [" a"]}}, "a pattern is ' a': write it in one line"),
    ({"limits": {"blockedPatterns": [""]}}, "spec.limits.blockedPatterns[0]"),
    ({"networkPolicy": {"from": [{}]}}, "an entry of networkPolicy.from names nobody"),
    (
        {"networkPolicy": {"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}},
        "pods and addresses at once: write ipBlock alone",
    ),
    ({"networkPolicy": {"from": [{"ipBlock": {"cidr": "all"}}]}}, "ipBlock.cidr"),
    (
        {"monitoring": {"labels": {"rerank.dev/service": "x"}}},
        "monitoring.labels holds a key that the operator sets",
    ),
    (
        {"podTemplate": {"labels": {"app.kubernetes.io/name": "x"}}},
        "podTemplate.labels holds a key that the operator sets",
    ),
    ({"podTemplate": {"labels": {"a": "b c"}}}, "the label's value is 'b c': write letters"),
    (
        {"podTemplate": {"annotations": {"rerank.dev/applied-hash": "x"}}},
        "podTemplate.annotations holds a key that the operator sets",
    ),
    (
        {"podTemplate": {"env": [{"name": "RERANK_MODEL", "value": "x"}]}},
        "podTemplate.env holds RERANK_MODEL, which the operator sets",
    ),
    (
        {"podTemplate": {"env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}]}},
        "spec.podTemplate.env[1]: Duplicate value",
    ),
    (
        {
            "podTemplate": {
                "env": [
                    {"name": "A", "value": "x"}
                    | {"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                ]
            }
        },
        "A has both value and valueFrom: leave one of them out",
    ),
    ({"podTemplate": {"env": [{"name": "A", "valueFrom": {}}]}}, "valueFrom holds no source"),
    (
        {"podTemplate": {"volumes": [{"name": "home", "emptyDir": {}}]}},
        "podTemplate.volumes holds home, which the operator uses: choose another name",
    ),
    ({"podTemplate": {"volumes": [{"name": "x"}]}}, "a volume holds no source"),
    (
        {"podTemplate": {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}},
        'unknown field "spec.podTemplate.volumes[0].hostPath"',
    ),
    (
        {"podTemplate": {"volumeMounts": [{"name": "x", "mountPath": "/x"}]}},
        "names a volume that podTemplate.volumes does not hold: add it there",
    ),
    *[
        (
            {"podTemplate": {"volumeMounts": [{"name": "x", "mountPath": path}]}},
            f"podTemplate.volumeMounts covers {path}, which the server uses",
        )
        for path in ("/dev/shm", "/dev", "/var/cache/rerank/hub", "/opt/server")
    ],
    (
        {"podTemplate": {"volumeMounts": [{"name": "x", "mountPath": "/a/../b"}]}},
        "mountPath is '/a/../b': write an absolute path",
    ),
    (
        {"podTemplate": {"hostNetwork": True}},
        'unknown field "spec.podTemplate.hostNetwork"',
    ),
    (
        {"podTemplate": {"priorityClassName": "A b"}},
        "podTemplate.priorityClassName is 'A b': write an object's name",
    ),
    ({"podTemplate": {"affinity": {"nodeAfinity": {}}}}, "nodeAfinity"),
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
        {"cache": {}},
        {"cache": {"size": "1.5Ti", "accessModes": ["ReadWriteOnce", "ReadWriteMany"]}},
        {"cache": {"existingClaim": "models"}, "model": {"name": "/var/cache/rerank/hub/a"}},
        {"engine": {"extraArgs": {"max_num_seqs": 8, "nested": {"a": [1, None]}}}},
        {"model": MODEL | {"hubEndpoint": "http://[fd00::1]:8080/mirror/"}},
        {"limits": {"blockedPatterns": [r"'\"\\d{3}$(x)"], "trustedProxies": ["fd00::/8"]}},
        {"podTemplate": {"env": [{"name": "RERANK_LOG_LEVEL", "value": "debug"}]}},
        {"podTemplate": {"labels": {"empty": ""}, "volumes": [{"name": "v", "emptyDir": {}}]}},
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
