from typing import Any

import pytest
import yaml

from builders import make_reranker
from rerank_operator.api import Manifest
from rerank_operator.resources import desired
from rerank_operator.settings import Settings

SETTINGS = Settings(server_image="gpu:1", server_image_cpu="cpu:1")

LABELS = {
    "app.kubernetes.io/name": "reranker",
    "app.kubernetes.io/instance": "demo",
    "app.kubernetes.io/managed-by": "rerank-operator",
    "rerank.dev/service": "demo",
}

POD = """
serviceAccountName: demo
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: 80
securityContext:
  runAsNonRoot: true
  runAsUser: 2000
  runAsGroup: 2000
  fsGroup: 2000
  seccompProfile: {type: RuntimeDefault}
containers:
- name: server
  image: gpu:1
  imagePullPolicy: IfNotPresent
  ports: [{name: http, containerPort: 8080, protocol: TCP}]
  env:
  - {name: HOME, value: /var/cache/rerank}
  - {name: LANG, value: C.UTF-8}
  - {name: PYTHONUTF8, value: "1"}
  - {name: RERANK_DRAIN_SECONDS, value: "60"}
  - {name: RERANK_DTYPE, value: auto}
  - {name: RERANK_FAMILY, value: auto}
  - {name: RERANK_GPU_MEMORY_UTILIZATION, value: "0.9"}
  - {name: RERANK_HOST, value: 0.0.0.0}
  - {name: RERANK_MAX_MODEL_LEN, value: "4096"}
  - {name: RERANK_MODEL, value: Qwen/Qwen3-Reranker-0.6B}
  - {name: RERANK_PORT, value: "8080"}
  - {name: RERANK_TENSOR_PARALLEL_SIZE, value: "1"}
  - {name: VLLM_HOST_IP, value: 127.0.0.1}
  resources:
    requests: {nvidia.com/gpu: "1"}
    limits: {nvidia.com/gpu: "1"}
  volumeMounts:
  - {name: home, mountPath: /var/cache/rerank}
  - {name: shm, mountPath: /dev/shm}
  startupProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /health, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  readinessProbe:
    httpGet: {path: /ready, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 2
  lifecycle: {preStop: {sleep: {seconds: 5}}}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
volumes:
- {name: home, emptyDir: {}}
- {name: shm, emptyDir: {medium: Memory, sizeLimit: 1Gi}}
"""


def children(**spec: Any) -> dict[str, Manifest]:
    return {child["kind"]: child for child in desired(make_reranker(**spec), SETTINGS)}


def server(**spec: Any) -> Manifest:
    pod: Manifest = children(**spec)["Deployment"]["spec"]["template"]["spec"]
    container: Manifest = pod["containers"][0]
    return container


def environment(**spec: Any) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in server(**spec)["env"]}


def test_smallest_object_gives_exactly_these_children() -> None:
    metadata = {"name": "demo", "namespace": "search", "labels": LABELS}
    selector = {"app.kubernetes.io/name": "reranker", "rerank.dev/service": "demo"}

    manifests = desired(make_reranker(), SETTINGS)

    assert manifests == [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata,
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "ClusterIP",
                "selector": selector,
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {
                "replicas": 1,
                "revisionHistoryLimit": 3,
                "progressDeadlineSeconds": 1800,
                "selector": {"matchLabels": selector},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
                },
                "template": {"metadata": {"labels": LABELS}, "spec": yaml.safe_load(POD)},
            },
        },
    ]


# Every field of the spec: a value that is not its default. A field without a mapping fails here.
FIELDS = {
    "model.name": "/models/other",
    "model.revision": "v2",
    "model.servedName": "ranker",
    "model.family": "qwen3-reranker",
    "engine.dtype": "half",
    "engine.maxModelLen": 512,
    "engine.tensorParallelSize": 2,
    "engine.gpuMemoryUtilization": 0.5,
    "engine.enforceEager": True,
    "engine.instruction": "Find the answer",
    "accelerator.resource": "amd.com/gpu",
    "accelerator.count": 2,
    "image": "mine:1",
    "resources.requests": {"cpu": "2"},
    "resources.limits": {"memory": "8Gi"},
    "replicas": 3,
    "drainSeconds": 10,
}


def leaves(model: Any, path: str = "") -> set[str]:
    found: set[str] = set()
    for field in model.model_fields.values():
        name = f"{path}{field.alias}"
        nested = field.annotation
        found |= leaves(nested, f"{name}.") if hasattr(nested, "model_fields") else {name}
    return found


def test_table_of_fields_is_complete() -> None:
    assert set(FIELDS) == leaves(type(make_reranker().spec))


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_changes_a_child(path: str) -> None:
    group, _, name = path.rpartition(".")
    required = {"name": "Qwen/Qwen3-Reranker-0.6B"} if group == "model" else {}

    changed = required | {name: FIELDS[path]}

    assert children(**({group: changed} if group else changed)) != children()


def test_without_accelerator_the_cpu_image_runs_and_no_device_is_asked_for() -> None:
    container = server(accelerator={"resource": "none"})

    assert container["image"] == "cpu:1"
    assert container["resources"] == {}


def test_pod_asks_for_as_many_devices_as_share_the_model() -> None:
    container = server(engine={"tensorParallelSize": 4}, resources={"limits": {"memory": "8Gi"}})

    assert container["resources"] == {
        "requests": {"nvidia.com/gpu": "4"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "4"},
    }


def test_model_in_the_image_is_never_asked_for_at_the_hub() -> None:
    assert environment(model={"name": "/models/tiny"})["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment()


def test_dollars_in_a_value_reach_the_server_as_they_are() -> None:
    text = "Find offers below $$5, not $(HOME)"

    value = environment(engine={"instruction": text})["RERANK_INSTRUCTION"]

    assert value == "Find offers below $$$$5, not $$(HOME)"


def test_grace_period_covers_the_sleep_and_the_drain() -> None:
    pod = children(drainSeconds=300)["Deployment"]["spec"]["template"]["spec"]

    sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > sleep + 300


def test_progress_deadline_exceeds_the_startup_budget() -> None:
    deployment = children()["Deployment"]["spec"]
    probe = deployment["template"]["spec"]["containers"][0]["startupProbe"]

    budget = probe["failureThreshold"] * (probe["periodSeconds"] + probe["timeoutSeconds"])

    assert deployment["progressDeadlineSeconds"] > budget


def test_long_name_is_used_in_its_short_form_everywhere() -> None:
    name = "a" * 253

    manifests = desired(make_reranker(name=name), SETTINGS)

    assert len({manifest["metadata"]["name"] for manifest in manifests}) == 1
    assert name not in str(manifests)
