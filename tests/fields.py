"""Every field of the spec: a value to change it to, and what then differs in the children.

Unit tests see it in the manifests, apiserver tests in the cluster. A field of the schema that no
entry covers fails both.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rerank_operator.api import Manifest
from rerank_operator.crd import build_crd

POD = "Deployment/spec/template/spec"
SERVER = f"{POD}/containers/server"
STRATEGY = "Deployment/spec/strategy/rollingUpdate"
PRESENT = "present"


class Change(NamedTuple):
    """`value` for a field, and the places in the children that then hold something else.

    A place is a kind and a path in it, with the name of a list's item where it has one. Nothing
    behind a place means that it has gone. `others` is what the rest of the spec has to say first.
    """

    value: Any
    seen: dict[str, Any]
    others: Manifest | None = None


def variable(name: str, value: str | None) -> dict[str, Any]:
    """Return where a variable of the server is seen."""
    return {f"{SERVER}/env/{name}/value": value}


def secret(name: str, secret: str, key: str) -> dict[str, Any]:
    """Return where a variable that is read from a Secret is seen."""
    place = f"{SERVER}/env/{name}/valueFrom/secretKeyRef"
    return {f"{place}/name": secret, f"{place}/key": key}


AFFINITY = {
    "nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
    ]
}
NEAR = {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "x"}}}
WEIGHTED = [{"weight": 1, "podAffinityTerm": NEAR}]
WORKERS = {
    "matchLabels": {"team": "search"},
    "matchExpressions": [
        {"key": "role", "operator": "In", "values": ["rag"]},
        {"key": "old", "operator": "DoesNotExist", "values": []},
    ],
}


def workers(place: str) -> dict[str, Any]:
    """Return where a selector of WORKERS is seen."""
    return {
        f"{place}/matchLabels/team": "search",
        f"{place}/matchExpressions/0/key": "role",
        f"{place}/matchExpressions/0/operator": "In",
        f"{place}/matchExpressions/0/values/0": "rag",
        f"{place}/matchExpressions/1/key": "old",
        f"{place}/matchExpressions/1/operator": "DoesNotExist",
    }


VOLUMES = [
    {"name": "ca", "configMap": {"name": "ca", "optional": True}},
    {"name": "keys", "secret": {"secretName": "keys", "optional": False}},
    {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
    {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "1024Mi"}},
    {"name": "disk", "emptyDir": {}},
]
FROM = "NetworkPolicy/spec/ingress/0/from"
SCALED = "ScaledObject/spec"
HPA = "HorizontalPodAutoscaler/spec"
ASKED_OF_PODS = (
    "url",
    "format",
    "valueLocation",
    "targetValue",
    "aggregateFromKubeServiceEndpoints",
    "aggregationType",
)
SCALING: Manifest = {"autoscaling": {"maxReplicas": 4}}
SCALING_BY_HPA: Manifest = {"autoscaling": {"type": "hpa", "maxReplicas": 4}}


def prometheus(index: int, metric: str, target: str) -> dict[str, Any]:
    """Return what is seen of a trigger that asked the pods and now asks Prometheus."""
    place = f"{SCALED}/triggers/{index}"
    labels = 'namespace="search",pod=~"demo-[a-z0-9]+(-[a-z0-9]+)?"'
    asked = {
        "serverAddress": "http://prometheus:9090",
        "query": f"sum({metric}{{{labels}}})",
        "threshold": target,
        "ignoreNullValues": "false",
    }
    return (
        {f"{place}/type": "prometheus"}
        | {f"{place}/metadata/{name}": value for name, value in asked.items()}
        | {f"{place}/metadata/{name}": None for name in ASKED_OF_PODS}
    )


SPREAD = f"{POD}/topologySpreadConstraints"

CLAIM = "PersistentVolumeClaim/spec"
# A cache that pods fill by themselves.
PLAIN: Manifest = {"cache": {"prefetch": False}}
ONE_NODE = f"{POD}/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/0"

FIELDS: dict[str, Change] = {
    "model.name": Change(
        "/models/other",
        variable("RERANK_MODEL", "/models/other")
        | variable("HF_HUB_OFFLINE", "1")
        | variable("HF_HUB_DISABLE_TELEMETRY", None),
    ),
    "model.revision": Change("v2", variable("RERANK_REVISION", "v2")),
    "model.family": Change("qwen3-reranker", variable("RERANK_FAMILY", "qwen3-reranker")),
    "model.servedName": Change("ranker", variable("RERANK_SERVED_NAME", "ranker")),
    "model.strictName": Change(True, variable("RERANK_STRICT_MODEL_NAME", "true")),
    "model.hubEndpoint": Change(
        "https://hub.example.com", variable("HF_ENDPOINT", "https://hub.example.com")
    ),
    "model.tokenSecretRef": Change({"name": "hub", "key": "k"}, secret("HF_TOKEN", "hub", "k")),
    "model.trustRemoteCode": Change(True, variable("RERANK_TRUST_REMOTE_CODE", "true")),
    "engine.dtype": Change("half", variable("RERANK_DTYPE", "half")),
    "engine.quantization": Change("awq", variable("RERANK_QUANTIZATION", "awq")),
    "engine.maxModelLen": Change(512, variable("RERANK_MAX_MODEL_LEN", "512")),
    "engine.tensorParallelSize": Change(
        2,
        variable("RERANK_TENSOR_PARALLEL_SIZE", "2")
        | {
            f"{SERVER}/resources/limits/nvidia.com/gpu": "2",
            f"{SERVER}/resources/requests/nvidia.com/gpu": "2",
        },
    ),
    "engine.enginesPerGpu": Change(2, variable("RERANK_ENGINES_PER_GPU", "2")),
    "engine.gpuMemoryUtilization": Change(0.5, variable("RERANK_GPU_MEMORY_UTILIZATION", "0.5")),
    "engine.enforceEager": Change(False, variable("RERANK_ENFORCE_EAGER", "false")),
    "engine.instruction": Change("Find it", variable("RERANK_INSTRUCTION", "Find it")),
    "engine.scoreCheck": Change("enforce", variable("RERANK_SCORE_CHECK", "enforce")),
    "engine.extraArgs": Change(
        {"max_num_seqs": 8, "enable_prefix_caching": False, "nested": {"a": [1, None]}},
        variable(
            "RERANK_ENGINE_ARGS",
            '{"enable_prefix_caching": false, "max_num_seqs": 8, "nested": {"a": [1, null]}}',
        ),
    ),
    "accelerator.resource": Change(
        "amd.com/gpu",
        {
            f"{SERVER}/resources/{part}/{name}": value
            for part in ("limits", "requests")
            for name, value in (("amd.com/gpu", "1"), ("nvidia.com/gpu", None))
        },
    ),
    "accelerator.count": Change(
        2,
        {f"{SERVER}/resources/{part}/nvidia.com/gpu": "2" for part in ("limits", "requests")},
    ),
    "image": Change("mine:1", {f"{SERVER}/image": "mine:1"}),
    "resources.requests": Change({"cpu": 2}, {f"{SERVER}/resources/requests/cpu": "2"}),
    "resources.limits": Change({"memory": "8Gi"}, {f"{SERVER}/resources/limits/memory": "8Gi"}),
    "cache.size": Change("50Gi", {f"{CLAIM}/resources/requests/storage": "50Gi"}, PLAIN),
    "cache.storageClassName": Change("fast", {f"{CLAIM}/storageClassName": "fast"}, PLAIN),
    "cache.accessModes": Change(
        ["ReadWriteMany"],
        {
            f"{CLAIM}/accessModes/0": "ReadWriteMany",
            f"{ONE_NODE}/topologyKey": None,
            f"{ONE_NODE}/labelSelector/matchLabels/rerank.dev/volume": None,
        },
        PLAIN,
    ),
    "cache.existingClaim": Change(
        "models",
        {
            "PersistentVolumeClaim": None,
            f"{POD}/volumes/cache/persistentVolumeClaim/claimName": "models",
            "Deployment/spec/template/metadata/labels/rerank.dev/volume": "models",
            f"{ONE_NODE}/labelSelector/matchLabels/rerank.dev/volume": "models",
        },
        PLAIN,
    ),
    # It is about who owns the claim, which is not part of what is built.
    "cache.retain": Change(False, {}, PLAIN),
    "cache.prefetch": Change(
        False,
        {"Job": None, f"{SERVER}/volumeMounts//var/cache/rerank/hub/readOnly": None}
        | variable("HF_HUB_OFFLINE", None)
        | variable("HF_HUB_DISABLE_TELEMETRY", "1"),
        {"cache": {"size": "1Gi"}},
    ),
    "replicas": Change(2, {"Deployment/spec/replicas": 2, "PodDisruptionBudget": PRESENT}),
    "autoscaling.type": Change(
        "hpa",
        {"ScaledObject": None, "HorizontalPodAutoscaler": PRESENT},
        SCALING,
    ),
    "autoscaling.minReplicas": Change(
        2,
        {f"{SCALED}/minReplicaCount": 2},
        SCALING,
    ),
    "autoscaling.maxReplicas": Change(4, {"ScaledObject": PRESENT, "PodDisruptionBudget": PRESENT}),
    "autoscaling.targetQueueDepth": Change(
        64,
        {
            f"{SCALED}/triggers/0/metadata/valueLocation": "rerank_queue_depth",
            f"{SCALED}/triggers/0/metadata/targetValue": "64",
        },
        SCALING,
    ),
    "autoscaling.targetWaitSeconds": Change(
        0.5, {f"{SCALED}/triggers/0/metadata/targetValue": "0.5"}, SCALING
    ),
    "autoscaling.scaleDownStabilizationSeconds": Change(
        60,
        {
            f"{SCALED}/cooldownPeriod": 60,
            f"{SCALED}/advanced/horizontalPodAutoscalerConfig/behavior/scaleDown"
            "/stabilizationWindowSeconds": 60,
        },
        SCALING,
    ),
    "autoscaling.prometheus.serverAddress": Change(
        "http://prometheus:9090",
        {
            **prometheus(0, "rerank_queue_wait_seconds", "1"),
            **prometheus(1, "rerank_utilization", "0.7"),
        },
        SCALING,
    ),
    "autoscaling.prometheus.query": Change(
        "sum(gateway_queue)",
        {
            f"{SCALED}/triggers/0/metadata/query": "sum(gateway_queue)",
            **{
                f"{SCALED}/triggers/1/{name}": None
                for name in (
                    "type",
                    "metricType",
                    "metadata/serverAddress",
                    "metadata/query",
                    "metadata/threshold",
                    "metadata/ignoreNullValues",
                )
            },
        },
        {"autoscaling": {"maxReplicas": 4, "prometheus": {"serverAddress": "http://p:9090"}}},
    ),
    "autoscaling.schedules": Change(
        [
            {
                "start": "0 8 * * 1-5",
                "end": "0 20 * * 1-5",
                "timezone": "Europe/Zurich",
                "replicas": 2,
            }
        ],
        {
            f"{SCALED}/triggers/2/type": "cron",
            f"{SCALED}/triggers/2/metadata/start": "0 8 * * 1-5",
            f"{SCALED}/triggers/2/metadata/end": "0 20 * * 1-5",
            f"{SCALED}/triggers/2/metadata/timezone": "Europe/Zurich",
            f"{SCALED}/triggers/2/metadata/desiredReplicas": "2",
        },
        SCALING,
    ),
    "autoscaling.externalMetric.name": Change(
        "queue",
        {
            f"{HPA}/metrics/0/type": "External",
            f"{HPA}/metrics/0/external/metric/name": "queue",
            f"{HPA}/metrics/0/external/target/type": "AverageValue",
            f"{HPA}/metrics/0/external/target/averageValue": "1",
            **{
                f"{HPA}/metrics/{index}/pods/{name}": None
                for index in (0, 1)
                for name in ("metric/name", "target/type", "target/averageValue")
            },
            f"{HPA}/metrics/1/type": None,
        },
        SCALING_BY_HPA,
    ),
    "autoscaling.externalMetric.matchLabels": Change(
        {"service": "demo"},
        {f"{HPA}/metrics/0/external/metric/selector/matchLabels/service": "demo"},
        {"autoscaling": SCALING_BY_HPA["autoscaling"] | {"externalMetric": {"name": "queue"}}},
    ),
    "limits.maxDocuments": Change(10, variable("RERANK_MAX_DOCUMENTS", "10")),
    "limits.maxDocumentChars": Change(10, variable("RERANK_MAX_DOCUMENT_CHARS", "10")),
    "limits.maxQueryChars": Change(10, variable("RERANK_MAX_QUERY_CHARS", "10")),
    "limits.maxBodyBytes": Change(2048, variable("RERANK_MAX_BODY_BYTES", "2048")),
    "limits.maxQueuedPairs": Change(2000, variable("RERANK_MAX_QUEUED_PAIRS", "2000")),
    "limits.requestsPerMinutePerClient": Change(
        60, variable("RERANK_REQUESTS_PER_MINUTE_PER_CLIENT", "60")
    ),
    "limits.trustedProxies": Change(
        ["10.1.2.3/8", "fd00::/8"], variable("RERANK_TRUSTED_PROXIES", "10.0.0.0/8,fd00::/8")
    ),
    "limits.blockedPatterns": Change(
        ["(?i)secret", "a$"], variable("RERANK_BLOCKED_PATTERNS", "(?i)secret\na$$")
    ),
    "limits.truncate": Change(False, variable("RERANK_TRUNCATE", "false")),
    "rollout": Change(
        "InPlace",
        {f"{STRATEGY}/maxSurge": 0, f"{STRATEGY}/maxUnavailable": 1},
        # Auto would leave it at that until all pods serve.
        {"rollout": "Surge"},
    ),
    "drainSeconds": Change(
        10,
        variable("RERANK_DRAIN_SECONDS", "10") | {f"{POD}/terminationGracePeriodSeconds": 30},
    ),
    "auth.tokenSecretRef": Change(
        {"name": "api", "key": "k"}, secret("RERANK_API_TOKEN", "api", "k")
    ),
    "ui.enabled": Change(True, variable("RERANK_UI", "true")),
    "networkPolicy.enabled": Change(True, {"NetworkPolicy": PRESENT}),
    "networkPolicy.from": Change(
        [
            {"podSelector": WORKERS, "namespaceSelector": WORKERS},
            {"podSelector": {}, "namespaceSelector": {}},
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}},
        ],
        {
            f"{FROM}/0/podSelector": None,
            **workers(f"{FROM}/0/podSelector"),
            **workers(f"{FROM}/0/namespaceSelector"),
            f"{FROM}/1/podSelector": {},
            f"{FROM}/1/namespaceSelector": {},
            f"{FROM}/2/ipBlock/cidr": "10.0.0.0/8",
            f"{FROM}/2/ipBlock/except/0": "10.1.0.0/16",
        },
        {"networkPolicy": {"enabled": True}},
    ),
    "monitoring.podMonitor": Change(True, {"PodMonitor": PRESENT}),
    "monitoring.labels": Change(
        {"release": "prometheus"},
        {"PodMonitor/metadata/labels/release": "prometheus"},
        {"monitoring": {"podMonitor": True}},
    ),
    "podTemplate.labels": Change(
        {"team": "search"}, {"Deployment/spec/template/metadata/labels/team": "search"}
    ),
    "podTemplate.annotations": Change(
        {"scrape": "yes"}, {"Deployment/spec/template/metadata/annotations/scrape": "yes"}
    ),
    "podTemplate.nodeSelector": Change({"pool": "gpu"}, {f"{POD}/nodeSelector/pool": "gpu"}),
    "podTemplate.tolerations": Change(
        [
            {"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoExecute"}
            | {"tolerationSeconds": 0},
            {"operator": "Exists"},
        ],
        {
            f"{POD}/tolerations/0/key": "gpu",
            f"{POD}/tolerations/0/operator": "Equal",
            f"{POD}/tolerations/0/value": "a",
            f"{POD}/tolerations/0/effect": "NoExecute",
            f"{POD}/tolerations/0/tolerationSeconds": 0,
            f"{POD}/tolerations/1/operator": "Exists",
        },
    ),
    "podTemplate.affinity": Change(
        {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": AFFINITY},
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []},
            "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": WEIGHTED},
        },
        {
            f"{POD}/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution"
            "/nodeSelectorTerms/0/matchExpressions/0/values/0": "a",
            f"{POD}/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution"
            "/nodeSelectorTerms/0/matchExpressions/0/key": "zone",
            f"{POD}/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution"
            "/nodeSelectorTerms/0/matchExpressions/0/operator": "In",
            f"{POD}/affinity/podAffinity": {},
            f"{POD}/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution"
            "/0/weight": 1,
            f"{POD}/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution"
            "/0/podAffinityTerm/topologyKey": "zone",
            f"{POD}/affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution"
            "/0/podAffinityTerm/labelSelector/matchLabels/app": "x",
        },
    ),
    "podTemplate.topologySpreadConstraints": Change(
        [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
            {
                "maxSkew": 2,
                "topologyKey": "host",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": WORKERS,
                "matchLabelKeys": ["pod-template-hash"],
                "minDomains": 2,
                "nodeAffinityPolicy": "Ignore",
                "nodeTaintsPolicy": "Honor",
            },
        ],
        {
            f"{SPREAD}/0/maxSkew": 1,
            f"{SPREAD}/0/topologyKey": "zone",
            f"{SPREAD}/0/whenUnsatisfiable": "ScheduleAnyway",
            f"{SPREAD}/0/labelSelector/matchLabels/app.kubernetes.io/name": "reranker",
            f"{SPREAD}/0/labelSelector/matchLabels/rerank.dev/service": "demo",
            f"{SPREAD}/1/maxSkew": 2,
            f"{SPREAD}/1/topologyKey": "host",
            f"{SPREAD}/1/whenUnsatisfiable": "DoNotSchedule",
            **workers(f"{SPREAD}/1/labelSelector"),
            f"{SPREAD}/1/matchLabelKeys/0": "pod-template-hash",
            f"{SPREAD}/1/minDomains": 2,
            f"{SPREAD}/1/nodeAffinityPolicy": "Ignore",
            f"{SPREAD}/1/nodeTaintsPolicy": "Honor",
        },
    ),
    "podTemplate.priorityClassName": Change("high", {f"{POD}/priorityClassName": "high"}),
    "podTemplate.runtimeClassName": Change("nvidia", {f"{POD}/runtimeClassName": "nvidia"}),
    "podTemplate.schedulerName": Change("packer", {f"{POD}/schedulerName": "packer"}),
    "podTemplate.imagePullSecrets": Change(
        [{"name": "registry"}], {f"{POD}/imagePullSecrets/registry": {}}
    ),
    "podTemplate.env": Change(
        [
            {"name": "HTTPS_PROXY", "value": "http://$(PROXY):3128"},
            {"name": "EMPTY", "value": ""},
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {
                "name": "B",
                "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": False}},
            },
            {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {
                "name": "D",
                "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}},
            },
        ],
        variable("HTTPS_PROXY", "http://$(PROXY):3128")
        | {f"{SERVER}/env/EMPTY": {}}
        | secret("A", "s", "k")
        | secret("D", "s", "k")
        | {
            f"{SERVER}/env/B/valueFrom/configMapKeyRef/name": "c",
            f"{SERVER}/env/B/valueFrom/configMapKeyRef/key": "k",
            f"{SERVER}/env/B/valueFrom/configMapKeyRef/optional": False,
            f"{SERVER}/env/C/valueFrom/fieldRef/fieldPath": "metadata.name",
            f"{SERVER}/env/D/valueFrom/secretKeyRef/optional": True,
        },
    ),
    "podTemplate.volumes": Change(
        VOLUMES,
        {
            f"{POD}/volumes/ca/configMap/name": "ca",
            f"{POD}/volumes/ca/configMap/optional": True,
            f"{POD}/volumes/keys/secret/secretName": "keys",
            f"{POD}/volumes/keys/secret/optional": False,
            f"{POD}/volumes/models/persistentVolumeClaim/claimName": "models",
            f"{POD}/volumes/models/persistentVolumeClaim/readOnly": True,
            f"{POD}/volumes/scratch/emptyDir/medium": "Memory",
            f"{POD}/volumes/scratch/emptyDir/sizeLimit": "1024Mi",
            f"{POD}/volumes/disk/emptyDir": {},
        },
    ),
    "podTemplate.volumeMounts": Change(
        [
            {"name": "models", "mountPath": "/models/a", "subPath": "a", "readOnly": True},
            {"name": "models", "mountPath": "/models/b", "readOnly": False},
        ],
        {
            f"{SERVER}/volumeMounts//models/a/name": "models",
            f"{SERVER}/volumeMounts//models/a/subPath": "a",
            f"{SERVER}/volumeMounts//models/a/readOnly": True,
            f"{SERVER}/volumeMounts//models/b/name": "models",
        },
        {"podTemplate": {"volumes": VOLUMES}},
    ),
    # What it does is to keep the children from changing.
    "paused": Change(True, {}),
}


def spec_with(path: str, value: Any, others: Manifest | None = None) -> Manifest:
    """Return the smallest spec with one field set, beside `others`."""
    spec: Manifest = {"model": {"name": "Qwen/Qwen3-Reranker-0.6B"}}
    for name, other in (others or {}).items():
        spec[name] = spec.get(name, {}) | other if isinstance(other, dict) else other
    *groups, name = path.split(".")
    place = spec
    for group in groups:
        place[group] = dict(place.get(group, {}))
        place = place[group]
    place[name] = value
    return spec


def spec_schema() -> Manifest:
    """Return the schema of the spec, as the API server has it."""
    schema = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    spec: Manifest = schema["properties"]["spec"]
    return spec


def schema_paths() -> set[str]:
    """Return the path of each leaf of it."""
    return {path for path, _ in leaves(spec_schema())}


def covered_paths() -> set[str]:
    """Return those of them that the values above set."""
    return {
        path
        for name, change in FIELDS.items()
        for path in _value_paths(spec_schema(), spec_with(name, change.value), "")
    }


def leaves(node: Manifest, path: str = "") -> Iterator[tuple[str, Manifest]]:
    """Yield what is no object of known fields, with its path; `[]` stands for a list's items."""
    properties = _properties(node)
    if properties:
        for name, child in properties.items():
            yield from leaves(child, f"{path}.{name}" if path else name)
    elif _properties(node.get("items", {})):
        yield from leaves(node["items"], f"{path}[]")
    else:
        yield path, node


def _value_paths(node: Manifest, value: Any, path: str) -> Iterator[str]:
    properties = _properties(node)
    if properties:
        for name, child in value.items():
            yield from _value_paths(properties[name], child, f"{path}.{name}" if path else name)
    elif _properties(node.get("items", {})):
        for item in value:
            yield from _value_paths(node["items"], item, f"{path}[]")
    else:
        yield path


def _properties(node: Manifest) -> Manifest:
    known: Manifest = {} if "x-kubernetes-preserve-unknown-fields" in node else node
    return dict(known.get("properties", {}))


def places(children: Mapping[str, Manifest]) -> dict[str, Any]:
    """Return what children, by kind, hold at each place; a kind that is there holds `present`."""
    found: dict[str, Any] = dict.fromkeys(children, PRESENT)
    for kind, child in children.items():
        found |= _places(kind, child)
    return found


def _places(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value:
        items = {f"{path}/{key}": child for key, child in value.items()}
    elif isinstance(value, list) and value:
        items = dict(_items(path, value))
    else:
        return {path: value}
    found: dict[str, Any] = {}
    for place, child in items.items():
        found |= _places(place, child)
    return found


def _items(path: str, items: list[Any]) -> Iterator[tuple[str, Any]]:
    for number, item in enumerate(items):
        key = next(
            (key for key in ("mountPath", "name") if isinstance(item, dict) and key in item), ""
        )
        if key:
            yield f"{path}/{item[key]}", {name: item[name] for name in item if name != key}
        else:
            yield f"{path}/{number}", item
