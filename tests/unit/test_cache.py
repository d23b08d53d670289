"""The volume of the model, the Job that fills it, and the pods that start from it."""

from typing import Any

import pytest
import yaml

from builders import make_deployment, make_reranker
from rerank_operator.api import Manifest, ModelStatus
from rerank_operator.names import OWNER_UID_ANNOTATION, PROGRESS_PATH
from rerank_operator.observed import Observed
from rerank_operator.ownership import with_owner
from rerank_operator.resources import desired
from rerank_operator.resources.cache import Found, build_claim, differences, download_id
from rerank_operator.settings import Settings
from rerank_server import download

SETTINGS = Settings(server_image="gpu:1", server_image_cpu="cpu:1")
COMMIT = "c0" * 20
MODEL = {"name": "org/model", "revision": "v1", "hubEndpoint": "https://hub", "family": "bert"}
TOKEN = {"tokenSecretRef": {"name": "hub"}}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

JOB = """
apiVersion: batch/v1
kind: Job
metadata:
  name: demo-e0e511130d
  namespace: search
  labels: &labels
    app.kubernetes.io/name: reranker
    app.kubernetes.io/instance: demo
    app.kubernetes.io/managed-by: rerank-operator
    rerank.dev/service: demo
    rerank.dev/download: d05dcbbfbc776944
spec:
  backoffLimit: 2147483647
  template:
    metadata:
      labels:
        <<: *labels
        app.kubernetes.io/name: reranker-download
        rerank.dev/volume: demo
    spec:
      serviceAccountName: demo
      automountServiceAccountToken: false
      enableServiceLinks: false
      restartPolicy: OnFailure
      terminationGracePeriodSeconds: 5
      affinity:
        podAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector: {matchLabels: {rerank.dev/volume: demo}}
      tolerations:
      - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
      securityContext:
        runAsNonRoot: true
        runAsUser: 2000
        runAsGroup: 2000
        fsGroup: 2000
        fsGroupChangePolicy: OnRootMismatch
        seccompProfile: {type: RuntimeDefault}
      containers:
      - name: download
        image: gpu:1
        imagePullPolicy: IfNotPresent
        command: [python3, -m, rerank_server.download]
        ports: [{name: http, containerPort: 8080, protocol: TCP}]
        env:
        - {name: HF_ENDPOINT, value: "https://hub"}
        - {name: HF_HUB_CACHE, value: /var/cache/rerank/hub}
        - {name: HF_HUB_DISABLE_TELEMETRY, value: "1"}
        - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hub, key: token}}}
        - {name: HOME, value: /var/cache/rerank}
        - {name: LANG, value: C.UTF-8}
        - {name: PYTHONUTF8, value: "1"}
        - {name: RERANK_HOST, value: 0.0.0.0}
        - {name: RERANK_MODEL, value: org/model}
        - {name: RERANK_PORT, value: "8080"}
        - {name: RERANK_REVISION, value: v1}
        - {name: RERANK_TRUST_REMOTE_CODE, value: "false"}
        resources: {requests: {cpu: 100m, memory: 512Mi}}
        volumeMounts:
        - {name: home, mountPath: /var/cache/rerank}
        - {name: cache, mountPath: /var/cache/rerank/hub}
        terminationMessagePolicy: FallbackToLogsOnError
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
      volumes:
      - {name: home, emptyDir: {}}
      - {name: cache, persistentVolumeClaim: {claimName: demo}}
"""


def claim(size: str = "20Gi", **spec: Any) -> Manifest:
    held = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"metadata": {"name": "demo", "uid": "claim-1"}, "spec": held | spec}


def found(**fields: Any) -> Found:
    model = ModelStatus(name="org/model", revision=COMMIT, download="x")
    default: dict[str, Any] = {
        "claim": claim(),
        "model": model,
        "waits": False,
        "downloads": False,
    }
    return Found(**default | fields)


def children(
    seen: Found | None = None, observed: Observed | None = None, **spec: Any
) -> dict[str, Manifest]:
    reranker = make_reranker(**{"model": MODEL, "cache": {}} | spec)
    wanted = desired(reranker, SETTINGS, observed or Observed(), seen)
    return {child["kind"]: child for child in wanted}


def pod(seen: Found | None = None, kind: str = "Deployment", **spec: Any) -> Manifest:
    found: Manifest = children(seen, **spec)[kind]["spec"]["template"]["spec"]
    return found


def environment(seen: Found | None = None, **spec: Any) -> dict[str, Any]:
    (container,) = pod(seen, **spec)["containers"]
    return {entry["name"]: entry.get("value", "secret") for entry in container["env"]}


def test_volume_is_exactly_this() -> None:
    spec = children()["PersistentVolumeClaim"]["spec"]

    assert spec == {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "20Gi"}},
    }


def test_job_is_exactly_this() -> None:
    job = children(found(model=None, downloads=True, waits=True), model=MODEL | TOKEN)["Job"]

    assert job == yaml.safe_load(JOB)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"memory": "8Gi", "nvidia.com/mig": 1}, {"memory": "4Gi"}),
        ({"cpu": 2, "memory": "256Mi"}, {"cpu": "2", "memory": "256Mi"}),
        ({"cpu": "50m"}, {"cpu": "50m"}),
    ],
)
def test_pod_that_downloads_has_no_larger_limits_than_those_that_serve(
    limits: dict[str, Any], expected: dict[str, str]
) -> None:
    (container,) = pod(kind="Job", resources={"limits": limits})["containers"]

    found = container["resources"]
    assert found["limits"] == expected
    requests = {"cpu": "100m", "memory": "512Mi"}
    smaller = {name: text for name, text in expected.items() if text in ("50m", "256Mi")}
    assert found["requests"] == requests | smaller


def test_pod_that_downloads_is_asked_at_the_path_where_it_answers() -> None:
    assert download.PROGRESS_PATH == PROGRESS_PATH


def test_command_of_the_job_is_a_module_of_the_server() -> None:
    (container,) = pod(kind="Job")["containers"]

    assert container["command"][-1] == download.__name__


def test_servers_start_offline_from_what_was_downloaded() -> None:
    variables = environment(found(), model=MODEL | TOKEN)

    assert variables["RERANK_REVISION"] == COMMIT
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["HF_HUB_CACHE"] == "/var/cache/rerank/hub"
    assert variables.keys().isdisjoint({"HF_TOKEN", "HF_ENDPOINT"})
    assert {"name": "cache", "mountPath": "/var/cache/rerank/hub", "readOnly": True} in (
        pod(found())["containers"][0]["volumeMounts"]
    )


def test_without_prefetch_servers_download_into_the_volume() -> None:
    variables = environment(cache={"prefetch": False}, model=MODEL | TOKEN)

    assert "Job" not in children(cache={"prefetch": False})
    assert "HF_HUB_OFFLINE" not in variables
    assert {"HF_TOKEN", "HF_ENDPOINT", "HF_HUB_CACHE"} <= variables.keys()
    assert variables["RERANK_REVISION"] == "v1"
    assert {"name": "cache", "mountPath": "/var/cache/rerank/hub"} in (
        pod(cache={"prefetch": False})["containers"][0]["volumeMounts"]
    )


def test_model_in_a_directory_of_the_volume_is_not_downloaded() -> None:
    spec: Manifest = {"model": {"name": "/var/cache/rerank/hub/m"}}
    cache = {"existingClaim": "models"}

    assert "Job" not in children(**spec, cache=cache)
    assert "PersistentVolumeClaim" not in children(**spec, cache=cache)
    assert environment(**spec, cache=cache)["HF_HUB_OFFLINE"] == "1"


def test_nothing_is_downloaded_before_the_volume_is_there() -> None:
    kinds = children(found(claim=None, model=None, waits=True)).keys()

    assert "PersistentVolumeClaim" in kinds
    assert kinds.isdisjoint({"Job", "Deployment"})


def test_pods_that_are_there_stay_while_a_model_is_downloaded() -> None:
    old = make_deployment() | {"spec": {"replicas": 1, "template": {"spec": {"containers": []}}}}

    seen = found(model=None, waits=True, downloads=True)
    deployment = children(seen, Observed(old), replicas=3)["Deployment"]

    assert deployment["spec"]["template"] == old["spec"]["template"]
    assert deployment["spec"]["replicas"] == 3


def test_users_placement_variables_and_volumes_reach_the_job() -> None:
    template = {
        "labels": {"team": "search"},
        "annotations": {"a": "b"},
        "nodeSelector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"x": 1}, "podAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "imagePullSecrets": [{"name": "registry"}],
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy"}],
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "volumeMounts": [{"name": "ca", "mountPath": "/etc/ca"}],
    }

    job = pod(kind="Job", podTemplate=template)

    (container,) = job["containers"]
    assert job["nodeSelector"] == {"pool": "gpu"}
    assert job["tolerations"] == template["tolerations"]
    assert set(job["affinity"]) == {"nodeAffinity", "podAffinity"}
    assert job["imagePullSecrets"] == [{"name": "registry"}]
    assert "topologySpreadConstraints" not in job
    assert {"name": "HTTPS_PROXY", "value": "http://proxy"} in container["env"]
    assert {"name": "ca", "mountPath": "/etc/ca"} in container["volumeMounts"]
    assert {"name": "ca", "configMap": {"name": "ca"}} in job["volumes"]


@pytest.mark.parametrize("modes", [["ReadWriteMany"], ["ReadWriteOnce", "ReadOnlyMany"]])
def test_volume_that_several_nodes_may_have_binds_pods_to_none(modes: list[str]) -> None:
    assert "affinity" not in pod(found(claim=claim(accessModes=modes)))


@pytest.mark.parametrize("kind", ["Deployment", "Job"])
@pytest.mark.parametrize(
    ("cache", "label"),
    [
        ({}, "demo"),
        ({"existingClaim": "models"}, "models"),
        ({"existingClaim": "a." * 126 + "a"}, "a-" * 21 + "a-6b9a7168"),
    ],
    ids=["own", "existing", "long"],
)
def test_pods_keep_to_the_node_of_those_that_mount_the_same_claim(
    kind: str, cache: dict[str, Any], label: str
) -> None:
    template = children(cache=cache)[kind]["spec"]["template"]

    (term,) = template["spec"]["affinity"]["podAffinity"][REQUIRED]
    assert template["metadata"]["labels"]["rerank.dev/volume"] == label
    assert term["labelSelector"]["matchLabels"] == {"rerank.dev/volume": label}


def test_pods_from_before_the_volume_hold_those_with_it_nowhere() -> None:
    before = children(cache=None)["Deployment"]["spec"]
    after = children()["Deployment"]["spec"]

    assert "rerank.dev/volume" not in before["template"]["metadata"]["labels"]
    # It cannot be changed.
    assert after["selector"] == before["selector"]


def test_volume_of_one_node_keeps_all_pods_there_whatever_else_they_keep_to() -> None:
    near = {"topologyKey": "zone"}
    template = {"affinity": {"podAffinity": {REQUIRED: [near]}}}

    affinity = pod(found(), podTemplate=template)["affinity"]

    assert [term["topologyKey"] for term in affinity["podAffinity"][REQUIRED]] == [
        "zone",
        "kubernetes.io/hostname",
    ]


@pytest.mark.parametrize(
    ("asked", "held", "becomes"),
    [
        ("5Gi", "20Gi", "20Gi"),
        ("20480Mi", "20Gi", "20480Mi"),
        ("21Gi", "20Gi", "21Gi"),
        (7, "6", "7"),
    ],
)
def test_volume_only_grows(asked: object, held: str, becomes: str) -> None:
    built = build_claim(make_reranker(cache={"size": asked}), claim(held))

    assert built is not None
    assert built["spec"]["resources"]["requests"]["storage"] == becomes


def test_class_and_modes_of_a_volume_stay_and_the_difference_is_known() -> None:
    reranker = make_reranker(
        cache={"storageClassName": "fast", "accessModes": ["ReadWriteMany", "ReadWriteOnce"]}
    )
    held = claim(storageClassName="slow")

    wanted = build_claim(reranker, None)
    built = build_claim(reranker, held)

    assert wanted is not None and built is not None
    assert differences(wanted["spec"], held["spec"]) == ["accessModes", "storageClassName"]
    assert built["spec"]["storageClassName"] == "slow"
    assert built["spec"]["accessModes"] == ["ReadWriteOnce"]


OWNED: Manifest = {
    "name": "demo",
    "uid": "claim-1",
    "annotations": {OWNER_UID_ANNOTATION: "uid-1"},
    "ownerReferences": [{"uid": "uid-1"}],
}


def test_own_volume_that_the_user_names_is_left_as_it_is_and_to_nobody() -> None:
    held = claim("5Gi", accessModes=["ReadWriteMany"], storageClassName="slow", volumeName="v")
    reranker = make_reranker(cache={"existingClaim": "demo", "retain": False})

    built = build_claim(reranker, held | {"metadata": OWNED})

    assert built is not None
    assert built["metadata"]["name"] == "demo"
    assert built["spec"] == {key: held["spec"][key] for key in held["spec"] if key != "volumeName"}
    assert "ownerReferences" not in with_owner(reranker, built)["metadata"]


@pytest.mark.parametrize(
    "other",
    [
        {"name": "models"},
        {"annotations": {}},
        {"ownerReferences": []},
        {"ownerReferences": [{"uid": "uid-other"}]},
    ],
    ids=str,
)
def test_volume_that_would_not_go_with_the_service_is_not_touched(other: Manifest) -> None:
    reranker = make_reranker(cache={"existingClaim": "demo"})

    assert build_claim(reranker, claim() | {"metadata": OWNED | other}) is None


def test_class_that_the_cluster_chose_is_no_difference() -> None:
    wanted = build_claim(make_reranker(cache={}), None)

    assert wanted is not None
    assert differences(wanted["spec"], claim(storageClassName="default")["spec"]) == []


@pytest.mark.parametrize(
    "change",
    [
        {"name": "org/other"},
        {"revision": "v2"},
        {"hubEndpoint": "https://other"},
        {"trustRemoteCode": True},
    ],
    ids=str,
)
def test_other_files_are_another_download(change: dict[str, Any]) -> None:
    before, after = make_reranker(model=MODEL), make_reranker(model=MODEL | change)

    assert download_id(before, claim()) != download_id(after, claim())


def test_other_volume_is_another_download() -> None:
    other = {"metadata": {"uid": "claim-2"}}

    assert download_id(make_reranker(), claim()) != download_id(make_reranker(), other)


def test_token_and_serving_do_not_make_another_download() -> None:
    before = make_reranker(model=MODEL)
    after = make_reranker(model=MODEL | TOKEN | {"family": "auto"}, engine={"dtype": "half"})

    assert download_id(before, claim()) == download_id(after, claim())


def test_job_of_another_template_has_another_name() -> None:
    jobs = [children(model=model)["Job"] for model in (MODEL, MODEL | TOKEN)]

    assert jobs[0]["metadata"]["name"] != jobs[1]["metadata"]["name"]
    assert jobs[0]["metadata"]["labels"] == jobs[1]["metadata"]["labels"]


def test_longest_name_still_makes_a_job() -> None:
    job = children(name="a" * 253)["Job"]

    assert len(job["metadata"]["name"]) == 63
