"""What the status says of a download, from what its Job and pod say."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from builders import make_reranker
from rerank_operator import names
from rerank_operator.api import Manifest, ModelStatus
from rerank_operator.observed import Progress
from rerank_operator.prefetch import Outlook, look, may_be_asked, refusal, without_pod
from rerank_operator.resources.cache import download_id

CLAIM: Manifest = {
    "metadata": {"name": "demo", "uid": "claim-1"},
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}},
}
COMMIT = "c0" * 20
MODEL = "Qwen/Qwen3-Reranker-0.6B"
DOWNLOAD = download_id(make_reranker(), CLAIM)
SAID = json.dumps({"model": MODEL, "revision": COMMIT, "bytes": 1})
RUNNING = {"running": {"startedAt": "2026-11-23T01:00:00Z"}}


def ended(code: int, message: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message}}


NO = ended(1, "no")
VOLUME_TERM = {
    "topologyKey": "kubernetes.io/hostname",
    "labelSelector": {"matchLabels": {names.VOLUME_LABEL: "demo"}},
}


def job(download: str = DOWNLOAD, **status: Any) -> Manifest:
    labels = {names.DOWNLOAD_LABEL: download}
    spec: Manifest = {"template": {"spec": {}}}
    return {"metadata": {"name": "demo-1", "labels": labels}, "spec": spec, "status": status}


def pod(
    state: dict[str, Any] | None = None, download: str = DOWNLOAD, **container: Any
) -> Manifest:
    labels = {names.DOWNLOAD_LABEL: download, "batch.kubernetes.io/job-name": "demo-1"}
    own = {"name": "download", "restartCount": 0, "state": state or {}} | container
    status = {"containerStatuses": [own]}
    metadata = {"name": "demo-1-pod", "uid": "pod-uid", "labels": labels}
    return {"metadata": metadata, "status": status}


def outlook(
    *pods: Manifest,
    claim: Manifest | None = CLAIM,
    jobs: list[Manifest] | None = None,
    deployment: Manifest | None = None,
    current: ModelStatus | None = None,
    refusal: str = "",
    progress: Mapping[str, Progress] = {},
    **spec: Any,
) -> Outlook:
    reranker = make_reranker(**{"cache": {}} | spec)
    jobs = [job()] if jobs is None else jobs
    return look(reranker, claim, deployment, jobs, pods, current, refusal, progress)


def told(*pods: Manifest, **arguments: Any) -> tuple[str, str]:
    cached = outlook(*pods, **arguments).cached
    assert cached is not None and not cached[0]
    return cached[1].reason, cached[1].message


def test_without_a_cache_nothing_is_told() -> None:
    seen = outlook(cache=None)

    assert seen.cached is None
    assert not seen.found.waits


def test_end_of_the_download_gives_the_commit() -> None:
    seen = outlook(pod(ended(0, SAID)))

    assert seen.model == ModelStatus(name=MODEL, revision=COMMIT, download=DOWNLOAD)
    assert seen.found.model == seen.model
    assert not seen.found.waits
    assert seen.kept == DOWNLOAD
    assert seen.cached is not None and seen.cached[0]
    assert seen.cached[1].message == f"{MODEL} at commit {COMMIT} is on volume demo"


def test_end_is_known_from_the_status_when_job_and_pod_are_gone() -> None:
    current = ModelStatus(name=MODEL, revision=COMMIT, download=DOWNLOAD)

    seen = outlook(jobs=[], current=current)

    assert seen.found.model == current
    assert not seen.found.downloads


def test_other_model_waits_and_the_one_that_is_served_stays_told() -> None:
    current = ModelStatus(name="org/old", revision=COMMIT, download="other")

    seen = outlook(pod(RUNNING), deployment={}, current=current)

    assert seen.found.waits and seen.found.downloads
    assert seen.found.model is None
    assert seen.model == current
    assert seen.cached is not None
    assert seen.cached[1].message.endswith("; until then the pods stay as they are")


def test_end_of_another_download_is_not_taken_for_this_ones() -> None:
    assert outlook(pod(ended(0, SAID), download="other"), jobs=[]).found.model is None


def test_end_that_nobody_saw_has_the_job_run_again() -> None:
    assert not outlook(jobs=[job(succeeded=1)]).found.downloads
    assert outlook(jobs=[job(active=1)]).found.downloads


def test_running_download_says_since_when_and_where_to_look() -> None:
    reason, message = told(pod(RUNNING))

    assert reason == names.DOWNLOADING
    assert f"{MODEL} is being downloaded since 2026-11-23T01:00:00Z" in message
    assert "kubectl logs demo-1-pod" in message


@pytest.mark.parametrize(
    ("done", "total", "words"),
    [
        (0, 2**20, "0.00 of 1.00 MiB (0 %)"),
        (2**29, 2**30, "0.50 of 1.00 GiB (50 %)"),
        (2**30 - 1, 2**30, "1.00 of 1.00 GiB (99 %)"),
        # A file that is fetched twice, by a download before this one.
        (2**31, 2**30, "1.00 of 1.00 GiB (100 %)"),
    ],
)
def test_running_download_that_was_asked_says_how_far_it_is(
    done: int, total: int, words: str
) -> None:
    progress = {"pod-uid": Progress(done_bytes=done, total_bytes=total)}

    reason, message = told(pod(RUNNING), progress=progress)

    assert reason == names.DOWNLOADING
    assert message == f"{MODEL} is being downloaded since 2026-11-23T01:00:00Z: {words}"


def test_only_a_pod_that_downloads_and_has_an_address_is_asked() -> None:
    addressed = pod(RUNNING)
    addressed["status"]["podIP"] = "10.0.0.1"
    ended_well = pod(ended(0, SAID))
    ended_well["status"]["podIP"] = "10.0.0.1"
    server = addressed | {"metadata": {"name": "demo-1", "labels": {}}}

    assert may_be_asked(addressed)
    assert not any(map(may_be_asked, [pod(RUNNING), ended_well, server]))


@pytest.mark.parametrize(
    ("pods", "reason", "words"),
    [
        ([], names.DOWNLOADING, "a Job is about to download"),
        ([pod({"waiting": {"reason": "ContainerCreating"}})], names.DOWNLOADING, "is starting"),
        ([pod(ended(1, "no such\nmodel"))], names.DOWNLOAD_FAILED, "no such model (tried once)"),
        (
            [pod({"waiting": {"reason": "CrashLoopBackOff"}}, lastState=NO, restartCount=3)],
            names.DOWNLOAD_FAILED,
            "no (tried 3 times)",
        ),
        (
            [pod(RUNNING, lastState=NO, restartCount=1)],
            names.DOWNLOAD_FAILED,
            "no (tried once)",
        ),
        ([pod(ended(137, ""))], names.DOWNLOAD_FAILED, "exit code 137 (tried once)"),
        ([pod(ended(0, "hello"))], names.DOWNLOAD_FAILED, "did not say which commit"),
        (
            [pod({"waiting": {"reason": "ErrImagePull", "message": "no route"}})],
            names.IMAGE_PULL_FAILED,
            "no route",
        ),
        (
            [pod({"terminated": {"reason": "OOMKilled", "exitCode": 137}})],
            names.OUT_OF_MEMORY,
            "memory",
        ),
    ],
)
def test_pod_that_is_not_done_tells_why(pods: list[Manifest], reason: str, words: str) -> None:
    found, message = told(*pods)

    assert found == reason
    assert words in message


def test_users_affinity_that_the_volume_may_contradict_is_told_with_the_schedulers_words() -> None:
    terms = [{"topologyKey": "zone"}, VOLUME_TERM]
    affinity = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    contrary = job() | {"spec": {"template": {"spec": {"affinity": affinity}}}}
    words = "0/2 nodes are available: 2 node(s) didn't match pod affinity rules."
    waiting = pod()
    waiting["status"] = {
        "conditions": [{"type": "PodScheduled", "status": "False", "message": words}]
    }

    reason, message = told(waiting, jobs=[contrary])

    assert reason == names.UNSCHEDULABLE
    assert message.startswith(f"pod demo-1-pod: {words}; spec.podTemplate.affinity.podAffinity has")


def test_missing_token_is_told_by_name_and_field() -> None:
    message = 'secret "hub" not found'
    waiting = {"reason": "CreateContainerConfigError", "message": message}

    reason, text = told(
        pod({"waiting": waiting}), model={"name": MODEL, "tokenSecretRef": {"name": "hub"}}
    )

    assert reason == names.SECRET_NOT_FOUND
    assert "spec.model.tokenSecretRef" in text


NOW = datetime(2026, 11, 23, 1, tzinfo=UTC)
QUOTA = 'Error creating: pods "demo-1-x" is forbidden: exceeded quota: pods, used: pods=1'


def aged(seconds: float, **status: Any) -> Manifest:
    """Return a Job that was made so long ago."""
    created = (NOW - timedelta(seconds=seconds)).isoformat()
    made = job(**status)
    return made | {"metadata": made["metadata"] | {"creationTimestamp": created}}


@pytest.mark.parametrize(
    ("what", "jobs", "pods", "asks"),
    [
        ("no Job", [], [], False),
        ("its controller has had no time", [aged(4)], [], False),
        ("no pod", [aged(6)], [], True),
        ("a pod", [aged(6)], [pod()], False),
        ("the end", [aged(6, succeeded=1)], [], False),
        ("given up", [aged(6, conditions=[{"type": "Failed", "status": "True"}])], [], False),
    ],
)
def test_job_is_asked_about_while_it_should_have_a_pod_and_has_none(
    what: str, jobs: list[Manifest], pods: list[Manifest], asks: bool
) -> None:
    assert (without_pod(jobs, pods, NOW) is not None) is asks, what


@pytest.mark.parametrize(
    ("words", "reason"),
    [(QUOTA, names.QUOTA_EXCEEDED), ("violates PodSecurity", names.PODS_REFUSED)],
)
def test_pod_that_may_not_be_made_is_told_in_the_api_servers_words(words: str, reason: str) -> None:
    found, message = told(refusal=words)

    assert found == reason
    assert message == f"no pod can be made to download {MODEL}: {words}"


def test_what_kept_an_earlier_pod_from_being_made_is_told_no_more() -> None:
    assert told(pod(RUNNING), refusal=QUOTA)[0] == names.DOWNLOADING


def test_latest_of_the_events_counts() -> None:
    created = {"creationTimestamp": "2026-11-23T01:00:00Z"}
    events = [
        {"note": "first", "metadata": created},
        {"note": "last", "metadata": created, "deprecatedLastTimestamp": "2026-11-23T01:00:02Z"},
        {"note": "then", "metadata": created, "deprecatedLastTimestamp": "2026-11-23T01:00:01Z"},
    ]

    assert refusal(events, NOW) == "last"
    assert refusal([], NOW) == ""


def test_event_that_is_old_tells_nothing_of_now() -> None:
    event = {"note": "old", "metadata": {"creationTimestamp": "2026-11-23T00:30:00Z"}}

    assert refusal([event], NOW) == ""


def test_job_that_was_ended_from_outside_says_how_to_go_on() -> None:
    failed = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded", "message": "m"}

    reason, message = told(jobs=[job(conditions=[failed])])

    assert reason == names.DOWNLOAD_FAILED
    assert message == "Job demo-1 was ended (DeadlineExceeded: m): delete it, and it is begun again"


@pytest.mark.parametrize(
    ("claim", "reason"),
    [
        (None, names.CLAIM_NOT_FOUND),
        (CLAIM | {"spec": {"accessModes": ["ReadWriteOncePod"]}}, names.CLAIM_UNFIT),
        (CLAIM | {"spec": {"accessModes": ["ReadOnlyMany"]}}, names.CLAIM_UNFIT),
    ],
)
def test_claim_of_the_user_that_will_not_do_keeps_all_waiting(
    claim: Manifest | None, reason: str
) -> None:
    seen = outlook(claim=claim, jobs=[], cache={"existingClaim": "models"})

    assert seen.problem is not None and seen.problem.reason == reason
    assert seen.found.waits and not seen.found.downloads
    assert seen.problem.message.startswith("spec.cache.existingClaim is models, ")


def test_claim_that_can_only_be_read_will_do_for_a_directory() -> None:
    claim = CLAIM | {"spec": {"accessModes": ["ReadOnlyMany"]}}

    seen = outlook(
        claim=claim, cache={"existingClaim": "models"}, model={"name": "/var/cache/rerank/hub/m"}
    )

    assert seen.problem is None
    assert not seen.found.waits


@pytest.mark.parametrize(
    ("spec", "remedy"),
    [
        ({}, "or set replicas to 0 and delete the claim"),
        (
            {"autoscaling": {"maxReplicas": 4}},
            "or take spec.autoscaling out, set replicas to 0 and delete the claim",
        ),
    ],
    ids=["fixed", "autoscaled"],
)
def test_own_claim_of_another_class_is_used_and_told(spec: dict[str, Any], remedy: str) -> None:
    claim = CLAIM | {"spec": CLAIM["spec"] | {"storageClassName": "slow"}}

    seen = outlook(claim=claim, cache={"storageClassName": "fast", "prefetch": False}, **spec)

    assert seen.problem is not None and seen.problem.reason == names.CLAIM_UNFIT
    assert remedy in seen.problem.message
    assert not seen.found.waits
