from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from builders import make_deployment, make_pod, make_reranker
from rerank_operator import names
from rerank_operator.api import Condition, Manifest, RerankerServiceStatus
from rerank_operator.status import Finding, build_status, invalid_status, merge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NONE = {"updatedReplicas": 1, "readyReplicas": 0, "availableReplicas": 0}


def condition(
    name: str, deployment: Manifest | None = None, *pods: Manifest, **arguments: Any
) -> Condition:
    problems = arguments.pop("problems", {})
    autoscaler = arguments.pop("autoscaler", None)
    status = build_status(
        make_reranker(**arguments),
        deployment,
        None,
        autoscaler,
        pods,
        problems,
        RerankerServiceStatus(),
        NOW,
    )
    return {found.type: found for found in status.conditions}[name]


def ready(deployment: Manifest | None = None, *pods: Manifest, **arguments: Any) -> Condition:
    return condition(names.READY, deployment, *pods, **arguments)


def test_all_pods_available_is_ready() -> None:
    found = ready(make_deployment(2), replicas=2)

    assert (found.status, found.reason) == ("True", names.ALL_PODS_READY)


@pytest.mark.parametrize(
    ("what", "deployment"),
    [
        ("the controller has not seen the change", make_deployment(generation=2, observed=1)),
        ("no pod yet", make_deployment(0)),
        ("old pod still serves", make_deployment(replicas=2, availableReplicas=1)),
        ("old pod counts as available", make_deployment(updatedReplicas=0)),
        ("new pod is not available", make_deployment(availableReplicas=0)),
    ],
)
def test_rollout_under_way_is_not_ready(what: str, deployment: Manifest) -> None:
    assert ready(deployment).status == "False", what


def test_zero_wanted_pods_is_ready() -> None:
    assert ready(make_deployment(0), replicas=0).reason == names.SCALED_TO_ZERO


def test_without_a_pod_that_serves_nothing_is_available() -> None:
    found = condition(names.AVAILABLE, make_deployment(availableReplicas=0))

    assert (found.status, found.reason) == ("False", names.NO_PODS_AVAILABLE)


def test_one_of_two_pods_is_available_but_not_ready() -> None:
    deployment = make_deployment(2, readyReplicas=1, availableReplicas=1)

    assert condition(names.AVAILABLE, deployment, replicas=2).status == "True"
    assert ready(deployment, replicas=2).status == "False"


def ended(reason: str = "Error", message: str = "") -> Manifest:
    return {"terminated": {"reason": reason, "exitCode": 1, "message": message}}


@pytest.mark.parametrize(
    ("reason", "pod"),
    [
        (names.STARTING_PODS, make_pod()),
        (names.STARTING_PODS, make_pod({"waiting": {"reason": "ContainerCreating"}})),
        (names.LOADING_MODEL, make_pod({"running": {}})),
        (names.IMAGE_PULL_FAILED, make_pod({"waiting": {"reason": "ImagePullBackOff"}})),
        (names.IMAGE_PULL_FAILED, make_pod({"waiting": {"reason": "ErrImageNeverPull"}})),
        (names.CONTAINER_REFUSED, make_pod({"waiting": {"reason": "CreateContainerConfigError"}})),
        (names.CRASH_LOOPING, make_pod({"waiting": {"reason": "CrashLoopBackOff"}}, ended())),
        (names.CRASH_LOOPING, make_pod({"running": {}}, ended())),
        (names.OUT_OF_MEMORY, make_pod({"running": {}}, ended("OOMKilled"))),
        (
            names.WAITING_FOR_GPU,
            make_pod(unschedulable="0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        ),
        (
            names.UNSCHEDULABLE,
            make_pod(unschedulable="0/3 nodes are available: 3 Insufficient cpu."),
        ),
    ],
)
def test_reason_comes_from_the_pod(reason: str, pod: Manifest) -> None:
    assert ready(make_deployment(**NONE), pod).reason == reason


NEAR = {"topologyKey": "zone"}
NEAR_VOLUME = {"labelSelector": {"matchLabels": {names.VOLUME_LABEL: "demo"}}}


@pytest.mark.parametrize(
    ("words", "terms", "noted"),
    [
        ("1 node(s) didn't match pod affinity rules.", [NEAR, NEAR_VOLUME], True),
        ("3 Insufficient x/gpu, 1 node(s) didn't match pod affinity rules", [NEAR_VOLUME], False),
        ("1 node(s) didn't match pod affinity rules.", [NEAR_VOLUME], False),
        ("1 node(s) didn't match pod affinity rules.", [NEAR], False),
        ("1 Insufficient cpu.", [NEAR, NEAR_VOLUME], False),
        ("1 node(s) didn't match pod anti-affinity rules.", [NEAR, NEAR_VOLUME], False),
    ],
)
def test_affinity_that_the_volume_may_contradict_is_named(
    words: str, terms: list[Manifest], noted: bool
) -> None:
    deployment = make_deployment(**NONE)
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    deployment["spec"]["template"] = {"spec": {"affinity": affinity}}

    found = ready(deployment, make_pod(unschedulable=words))

    assert words in found.message
    assert ("spec.podTemplate.affinity.podAffinity has" in found.message) is noted


@pytest.mark.parametrize(
    ("words", "noted"),
    [
        ("1 node(s) didn't match pod affinity rules, 2 node(s) had a taint.", True),
        ("3 Insufficient x/gpu, 1 node(s) didn't match pod affinity rules", False),
        ("1 node(s) had a taint.", False),
    ],
)
def test_pods_that_hold_the_volume_where_others_may_not_be_are_named(
    words: str, noted: bool
) -> None:
    deployment = make_deployment(**NONE)
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [NEAR_VOLUME]}}
    deployment["spec"]["template"] = {"spec": {"affinity": affinity}}

    found = ready(deployment, make_pod(unschedulable=words))

    assert ("spec.replicas 0" in found.message) is noted


SECRET = {"tokenSecretRef": {"name": "api", "key": "k"}}
USER_VARIABLE = {
    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]
}


@pytest.mark.parametrize(
    ("words", "told", "spec"),
    [
        (
            'secret "api" not found',
            "there is no Secret api (spec.auth.tokenSecretRef reads its key k): create it",
            {"auth": SECRET},
        ),
        (
            "couldn't find key k in Secret search/api",
            "Secret api has no key k (spec.auth.tokenSecretRef reads its key k): create it",
            {"auth": SECRET},
        ),
        (
            'secret "mine" not found',
            "there is no Secret mine (spec.podTemplate.env A reads its key k): create it",
            {"podTemplate": USER_VARIABLE},
        ),
        ('secret "gone" not found', "there is no Secret gone: create it", {}),
    ],
)
def test_missing_secret_is_told_by_name_key_and_field(
    words: str, told: str, spec: dict[str, Any]
) -> None:
    pod = make_pod({"waiting": {"reason": "CreateContainerConfigError", "message": words}})

    found = ready(make_deployment(**NONE), pod, **spec)

    assert found.reason == names.SECRET_NOT_FOUND
    assert told in found.message
    assert found.message.endswith("create it, and the pod starts by itself")


def test_missing_config_map_is_told_in_the_kubelets_words() -> None:
    words = 'configmap "c" not found'
    pod = make_pod({"waiting": {"reason": "CreateContainerConfigError", "message": words}})

    found = ready(make_deployment(**NONE), pod)

    assert found.reason == names.CONTAINER_REFUSED
    assert words in found.message


def test_paused_is_never_ready_and_tells_what_serves() -> None:
    deployment = make_deployment(2)

    found = ready(deployment, replicas=2, paused=True)

    assert (found.status, found.reason) == ("False", names.PAUSED)
    assert "2 pods answer" in found.message
    assert condition(names.AVAILABLE, deployment, replicas=2, paused=True).status == "True"


WANTED = {"podMonitor": True}


def test_service_without_its_pod_monitor_is_ready_and_says_so() -> None:
    problems = {names.POD_MONITORS: Finding(names.POD_MONITOR_MISSING, "install it")}
    arguments = {"problems": problems, "monitoring": WANTED}

    monitored = condition(names.MONITORED, make_deployment(), **arguments)

    assert (monitored.status, monitored.reason) == ("False", names.POD_MONITOR_MISSING)
    assert ready(make_deployment(), **arguments).status == "True"


def test_pod_monitor_that_is_there_is_told() -> None:
    found = condition(names.MONITORED, make_deployment(), monitoring=WANTED)

    assert (found.status, found.reason) == ("True", names.POD_MONITOR_APPLIED)


def test_condition_that_is_no_longer_asked_for_goes() -> None:
    def types(current: RerankerServiceStatus, **spec: Any) -> list[str]:
        reranker = make_reranker(**spec)
        return [c.type for c in status_of(reranker, current).conditions]

    def status_of(reranker: Any, current: RerankerServiceStatus) -> RerankerServiceStatus:
        return build_status(reranker, make_deployment(), None, None, [], {}, current, NOW)

    before = status_of(make_reranker(monitoring=WANTED), RerankerServiceStatus())

    assert types(before, monitoring=WANTED) == ["Available", "Monitored", "Ready"]
    assert types(before) == ["Available", "Ready"]


def test_pods_of_an_earlier_template_do_not_explain_the_latest() -> None:
    broken = make_pod(
        state={"waiting": {"reason": "ImagePullBackOff"}},
        labels={"pod-template-hash": "old"},
        creationTimestamp="2026-01-01T00:00:00Z",
    )
    loading = make_pod(
        state={"running": {}},
        labels={"pod-template-hash": "new"},
        creationTimestamp="2026-01-01T00:01:00Z",
    )

    assert ready(make_deployment(**NONE), broken, loading).reason == names.LOADING_MODEL


def test_pod_of_the_same_second_that_serves_is_of_the_earlier_template() -> None:
    second = "2026-01-01T00:00:00Z"
    hashes = [{"pod-template-hash": name} for name in ("old", "new")]
    old = make_pod(ready=True, labels=hashes[0], creationTimestamp=second)
    new = make_pod({"running": {}}, labels=hashes[1], creationTimestamp=second)

    assert ready(make_deployment(**NONE), old, new).reason == names.LOADING_MODEL


def test_crash_quotes_the_end_of_the_log() -> None:
    pod = make_pod({"running": {}}, ended(message="x" * 9000 + "\nunknown architecture Foo\n"))

    message = ready(make_deployment(**NONE), pod).message

    assert message.endswith("unknown architecture Foo")
    assert len(message) < 1000


def test_worst_of_several_pods_is_told() -> None:
    pods = [make_pod({"running": {}}), make_pod({"waiting": {"reason": "ErrImagePull"}})]

    assert ready(make_deployment(**NONE), *pods).reason == names.IMAGE_PULL_FAILED


@pytest.mark.parametrize(
    "pod",
    [make_pod({"running": {}}, deletionTimestamp="now"), make_pod({"running": {}}, ready=True)],
)
def test_pods_that_go_or_serve_are_no_reason(pod: Manifest) -> None:
    assert ready(make_deployment(**NONE), pod).reason == names.ROLLING_OUT


def finished(phase: str, **metadata: Any) -> Manifest:
    pod = make_pod(ended("Error"), **metadata)
    words = {"reason": "Evicted", "message": "The node was low on resource: memory."}
    return pod | {"status": pod["status"] | {"phase": phase, **words}}


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_finished_pod_does_not_speak_for_the_one_in_its_place(phase: str) -> None:
    pods = [finished(phase), make_pod({"running": {}}, name="demo-new")]

    found = ready(make_deployment(**NONE), *pods)

    assert found.reason == names.LOADING_MODEL
    assert found.message.startswith("pod demo-new is loading the model")


def test_last_eviction_is_told_beside_what_the_new_pod_does() -> None:
    pods = [
        finished("Failed", name="demo-2", creationTimestamp="2026-01-01T00:02:00Z"),
        finished("Failed", name="demo-1", creationTimestamp="2026-01-01T00:01:00Z"),
    ]

    found = ready(make_deployment(**NONE), *pods)

    assert found.reason == names.ROLLING_OUT
    assert found.message.endswith(
        "; earlier, pod demo-2 failed: Evicted: The node was low on resource: memory."
    )


def deployment_with(**condition: str) -> Manifest:
    return make_deployment(**NONE, conditions=[condition])


def test_quota_that_keeps_pods_away_is_told_in_its_own_words() -> None:
    message = 'pods "demo-1" is forbidden: exceeded quota: gpus'
    deployment = deployment_with(type="ReplicaFailure", status="True", message=message)

    found = ready(deployment)

    assert (found.reason, found.message) == (names.QUOTA_EXCEEDED, message)


def test_other_refusals_of_pods_have_their_own_reason() -> None:
    deployment = deployment_with(
        type="ReplicaFailure", status="True", message="violates PodSecurity"
    )

    assert ready(deployment).reason == names.PODS_REFUSED


def test_missed_deadline_is_a_stuck_rollout() -> None:
    deployment = deployment_with(
        type="Progressing", status="False", reason="ProgressDeadlineExceeded"
    )

    assert ready(deployment).reason == names.ROLLOUT_STUCK


def test_why_pods_do_not_start_comes_before_that_they_do_not() -> None:
    deployment = deployment_with(
        type="Progressing",
        status="False",
        reason="ProgressDeadlineExceeded",
        message="has timed out progressing.",
    )

    found = ready(deployment, make_pod({"waiting": {"reason": "ErrImagePull"}}))

    assert found.reason == names.IMAGE_PULL_FAILED
    assert found.message.endswith("; has timed out progressing.")


NO_GPU = "1 Insufficient nvidia.com/gpu."


@pytest.mark.parametrize(
    ("mode", "down", "words"),
    [
        ("Auto", 0, NO_GPU),
        ("Auto", 1, "so the new ones take their place"),
        ("Surge", 0, "free some, or set it to Auto"),
        ("InPlace", 1, NO_GPU),
    ],
)
def test_rollout_that_waits_for_a_gpu_tells_what_follows(mode: str, down: int, words: str) -> None:
    deployment = make_deployment(down=down, replicas=2, updatedReplicas=1)

    found = ready(deployment, make_pod(unschedulable=NO_GPU), rollout=mode)

    assert found.reason == names.WAITING_FOR_GPU
    assert found.message.endswith(words)


def test_first_start_that_waits_for_a_gpu_is_no_matter_of_the_rollout() -> None:
    pod = make_pod(unschedulable=NO_GPU)

    assert ready(make_deployment(**NONE), pod, rollout="Surge").message.endswith(NO_GPU)


def test_problem_with_the_children_comes_first() -> None:
    problem = Finding(names.NAME_CONFLICT, "Service demo exists")

    found = ready(make_deployment(), problems={names.SERVICES: problem})

    assert found.reason == names.NAME_CONFLICT


def test_new_message_keeps_the_transition_time() -> None:
    earlier = NOW - timedelta(hours=1)
    current = merge([], {"Ready": (False, Finding("LoadingModel", "a"))}, 1, earlier)

    updated = merge(current, {"Ready": (False, Finding("CrashLooping", "b"))}, 2, NOW)

    assert updated[0].message == "b"
    assert updated[0].observed_generation == 2
    assert updated[0].last_transition_time == earlier


def test_new_status_moves_the_transition_time() -> None:
    earlier = NOW - timedelta(hours=1)
    current = merge([], {"Ready": (False, Finding("LoadingModel", "a"))}, 1, earlier)

    updated = merge(current, {"Ready": (True, Finding("AllPodsReady", "b"))}, 1, NOW)

    assert updated[0].last_transition_time == NOW


def test_scale_always_finds_its_numbers() -> None:
    status = build_status(make_reranker(), None, None, None, [], {}, RerankerServiceStatus(), NOW)

    written = status.model_dump(by_alias=True, exclude_none=True)
    assert written["replicas"] == 0
    assert written["selector"] == "app.kubernetes.io/name=reranker,rerank.dev/service=demo"


@pytest.mark.parametrize(("service", "url"), [({}, "http://demo.search.svc"), (None, "")])
def test_url_is_told_once_its_service_is_there(service: Manifest | None, url: str) -> None:
    status = build_status(
        make_reranker(), None, service, None, [], {}, RerankerServiceStatus(), NOW
    )

    assert status.url == url


def test_unreadable_spec_keeps_the_facts_and_is_not_ready() -> None:
    current = build_status(
        make_reranker(), make_deployment(), None, None, [], {}, RerankerServiceStatus(), NOW
    )

    status = invalid_status(2, "spec.replicas: wrong", current, NOW)

    assert status.ready_replicas == 1
    assert {found.type: found.reason for found in status.conditions} == {
        "Available": names.PODS_AVAILABLE,
        "Ready": names.INVALID_SPEC,
    }
