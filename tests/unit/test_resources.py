from typing import Any

import pytest
import yaml

from bench import scaling
from builders import make_deployment, make_reranker
from rerank_operator.api import Manifest
from rerank_operator.names import VOLUME_LABEL
from rerank_operator.observed import Observed
from rerank_operator.resources import autoscaler, desired
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
  - {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
  - {name: HOME, value: /var/cache/rerank}
  - {name: LANG, value: C.UTF-8}
  - {name: PYTHONUTF8, value: "1"}
  - {name: RERANK_DRAIN_SECONDS, value: "60"}
  - {name: RERANK_DTYPE, value: auto}
  - {name: RERANK_ENGINES_PER_GPU, value: "1"}
  - {name: RERANK_FAMILY, value: auto}
  - {name: RERANK_GPU_MEMORY_UTILIZATION, value: "0.9"}
  - {name: RERANK_HOST, value: 0.0.0.0}
  - {name: RERANK_MAX_BODY_BYTES, value: "16777216"}
  - {name: RERANK_MAX_DOCUMENTS, value: "1000"}
  - {name: RERANK_MAX_DOCUMENT_CHARS, value: "100000"}
  - {name: RERANK_MAX_MODEL_LEN, value: "4096"}
  - {name: RERANK_MAX_QUERY_CHARS, value: "20000"}
  - {name: RERANK_MAX_QUEUED_PAIRS, value: "4096"}
  - {name: RERANK_MODEL, value: Qwen/Qwen3-Reranker-0.6B}
  - {name: RERANK_PORT, value: "8080"}
  - {name: RERANK_SCORE_CHECK, value: warn}
  - {name: RERANK_STRICT_MODEL_NAME, value: "false"}
  - {name: RERANK_TENSOR_PARALLEL_SIZE, value: "1"}
  - {name: RERANK_TRUNCATE, value: "true"}
  - {name: RERANK_TRUST_REMOTE_CODE, value: "false"}
  - {name: RERANK_UI, value: "false"}
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


def test_hub_is_not_named_to_a_pod_that_never_asks_it() -> None:
    model = {"name": "/m", "hubEndpoint": "https://hub", "tokenSecretRef": {"name": "hub"}}

    names = {entry["name"] for entry in server(model=model)["env"]}

    assert names.isdisjoint({"HF_ENDPOINT", "HF_TOKEN"})


def test_dollars_in_a_value_reach_the_server_as_they_are() -> None:
    text = "Find offers below $$5, not $(HOME)"

    value = environment(engine={"instruction": text})["RERANK_INSTRUCTION"]

    assert value == "Find offers below $$$$5, not $$(HOME)"


def test_what_is_reserved_stays_ours_in_an_object_from_before_it_was() -> None:
    template = {
        "labels": {"rerank.dev/service": "other", "app.kubernetes.io/name": "other"},
        "env": [{"name": "RERANK_MODEL", "value": "other"}, {"name": "HOME", "value": "/"}],
        "volumes": [{"name": "shm", "emptyDir": {}}],
        "volumeMounts": [{"name": "shm", "mountPath": "/var/cache/rerank"}],
    }

    assert children(podTemplate=template) == children()


@pytest.mark.parametrize(
    "escape",
    [
        {"hostNetwork": True},
        {"serviceAccountName": "admin"},
        {"automountServiceAccountToken": True},
        {"securityContext": {"runAsUser": 0}},
        {"containers": [{"name": "server", "securityContext": {"privileged": True}}]},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}, "emptyDir": {}}]},
    ],
    ids=str,
)
def test_pod_template_cannot_reach_what_the_pod_may_do(escape: Manifest) -> None:
    pod = children(podTemplate=escape)["Deployment"]["spec"]["template"]["spec"]

    assert "hostPath" not in str(pod)
    assert {key: value for key, value in pod.items() if key != "volumes"} == {
        key: value for key, value in yaml.safe_load(POD).items() if key != "volumes"
    }


def test_several_pods_are_never_taken_all_at_once() -> None:
    budget = children(replicas=2)["PodDisruptionBudget"]

    assert budget["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {
            "matchLabels": {"app.kubernetes.io/name": "reranker", "rerank.dev/service": "demo"}
        },
    }


@pytest.mark.parametrize(("modes", "is_there"), [([], False), (["ReadWriteMany"], True)])
def test_pods_that_a_volume_keeps_on_one_node_never_keep_it_from_being_drained(
    modes: list[str], is_there: bool
) -> None:
    found = children(replicas=2, cache={"accessModes": modes} if modes else {})

    assert ("PodDisruptionBudget" in found) is is_there


@pytest.mark.parametrize(("labels", "is_there"), [({}, True), ({VOLUME_LABEL: "demo"}, False)])
def test_pods_from_before_the_volume_keep_their_budget(
    labels: dict[str, str], is_there: bool
) -> None:
    deployment = make_deployment(2)
    deployment["spec"]["template"]["metadata"] = {"labels": labels}

    found = desired(make_reranker(replicas=2, cache={}), SETTINGS, Observed(deployment))

    assert any(child["kind"] == "PodDisruptionBudget" for child in found) is is_there


@pytest.mark.parametrize("replicas", [0, 1])
def test_single_pod_never_keeps_its_node_from_being_drained(replicas: int) -> None:
    assert "PodDisruptionBudget" not in children(replicas=replicas)


def test_closed_service_lets_in_pods_of_its_namespace_unless_told_otherwise() -> None:
    policy = children(networkPolicy={"enabled": True})["NetworkPolicy"]

    assert policy["spec"] == {
        "podSelector": {
            "matchLabels": {"app.kubernetes.io/name": "reranker", "rerank.dev/service": "demo"}
        },
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080, "protocol": "TCP"}]}],
    }


def test_pod_monitor_reads_the_port_that_the_pods_name() -> None:
    monitor = children(monitoring={"podMonitor": True, "labels": {"release": "x"}})["PodMonitor"]

    assert monitor["metadata"]["labels"] == LABELS | {"release": "x"}
    assert monitor["spec"] == {
        "selector": {
            "matchLabels": {"app.kubernetes.io/name": "reranker", "rerank.dev/service": "demo"}
        },
        "podMetricsEndpoints": [{"port": "http", "path": "/metrics"}],
    }


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


def test_simulation_scales_as_the_operator_does() -> None:
    assert scaling.UTILIZATION == autoscaler.UTILIZATION


SCALED_OBJECT = """
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
spec:
  scaleTargetRef: {apiVersion: rerank.dev/v1alpha1, kind: RerankerService, name: demo}
  minReplicaCount: 1
  maxReplicaCount: 4
  pollingInterval: 15
  cooldownPeriod: 300
  advanced:
    restoreToOriginalReplicaCount: false
    horizontalPodAutoscalerConfig:
      behavior:
        scaleUp: {stabilizationWindowSeconds: 0}
        scaleDown:
          stabilizationWindowSeconds: 300
          policies: [{type: Pods, value: 1, periodSeconds: 60}]
  triggers:
  - type: metrics-api
    metricType: AverageValue
    metadata:
      url: http://demo.search.svc:8080/metrics
      format: prometheus
      valueLocation: rerank_queue_wait_seconds
      targetValue: "1"
      aggregateFromKubeServiceEndpoints: "true"
      aggregationType: sum
  - type: metrics-api
    metricType: AverageValue
    metadata:
      url: http://demo.search.svc:8080/metrics
      format: prometheus
      valueLocation: rerank_utilization
      targetValue: "0.7"
      aggregateFromKubeServiceEndpoints: "true"
      aggregationType: sum
"""

HPA = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
spec:
  scaleTargetRef: {apiVersion: rerank.dev/v1alpha1, kind: RerankerService, name: demo}
  minReplicas: 1
  maxReplicas: 4
  metrics:
  - type: Pods
    pods:
      metric: {name: rerank_queue_depth}
      target: {type: AverageValue, averageValue: "64"}
  - type: Pods
    pods:
      metric: {name: rerank_utilization}
      target: {type: AverageValue, averageValue: 700m}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 0}
    scaleDown:
      stabilizationWindowSeconds: 300
      policies: [{type: Pods, value: 1, periodSeconds: 60}]
"""


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [({}, SCALED_OBJECT), ({"type": "hpa", "targetQueueDepth": 64}, HPA)],
)
def test_autoscaler_in_full(scaling: Manifest, expected: str) -> None:
    wanted = yaml.safe_load(expected)

    found = children(autoscaling={"maxReplicas": 4} | scaling)[wanted["kind"]]

    metadata = {"name": "demo", "namespace": "search", "labels": LABELS}
    assert found == wanted | {"metadata": metadata}


def test_service_without_pods_wakes_when_nobody_knows_of_work() -> None:
    prometheus = {"serverAddress": "http://prometheus:9090", "query": "sum(gateway_queue)"}

    zero, one = (
        children(autoscaling={"minReplicas": fewest, "maxReplicas": 4, "prometheus": prometheus})
        for fewest in (0, 1)
    )

    assert zero["ScaledObject"]["spec"]["fallback"]["replicas"] == 1
    assert "fallback" not in one["ScaledObject"]["spec"]


def test_service_of_certain_hours_is_not_woken_by_pods_that_are_not_there() -> None:
    schedule = {"start": "0 8 * * *", "end": "0 9 * * *"}
    scaling = {"minReplicas": 0, "maxReplicas": 4, "schedules": [schedule]}

    spec = children(autoscaling=scaling)["ScaledObject"]["spec"]

    assert "fallback" not in spec
    assert [trigger["type"] for trigger in spec["triggers"]] == [
        "metrics-api",
        "metrics-api",
        "cron",
    ]
