"""The volume of a model and the Job that fills it, without anybody who runs pods.

Each test says itself what became of the Job's pod.
"""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
import yaml

from apiserver.controlplane import ControlPlane, eventually
from apiserver.objects import COMMIT, Objects
from apiserver.operator_process import OperatorProcess
from rerank_operator.api import Manifest
from rerank_operator.names import HTTP_PORT

CLAIM = "PersistentVolumeClaim"
OTHER = "d1" * 20
TOKEN = {"name": "org/first", "tokenSecretRef": {"name": "hub"}}


def server(demo: Objects) -> Manifest:
    """Return the container of the servers."""
    container: Manifest = demo.child("Deployment")["spec"]["template"]["spec"]["containers"][0]
    return container


def variables(demo: Objects) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in server(demo)["env"]}


def cached(demo: Objects, reason: str) -> str:
    """Wait until ModelCached has a reason, and return its sentence."""
    eventually(lambda: demo.condition("ModelCached").get("reason") == reason)
    return str(demo.condition("ModelCached")["message"])


def claim(name: str, *modes: str) -> str:
    spec = {"accessModes": modes, "resources": {"requests": {"storage": "1Gi"}}}
    body = {"apiVersion": "v1", "kind": CLAIM, "metadata": {"name": name}, "spec": spec}
    return yaml.safe_dump(body)


def test_pods_come_when_the_model_is_there_and_never_ask_the_hub(demo: Objects) -> None:
    demo.create(model=TOKEN, cache={})
    eventually(lambda: demo.child("Job"))
    before = demo.child("Deployment")
    waiting = demo.condition()

    demo.finish_download()

    eventually(lambda: demo.child("Deployment"))
    assert before == {}
    assert waiting["reason"] == "Downloading"
    assert variables(demo)["RERANK_REVISION"] == COMMIT
    assert variables(demo)["HF_HUB_OFFLINE"] == "1"
    assert "HF_TOKEN" not in variables(demo)
    mounts = {mount["mountPath"]: mount for mount in server(demo)["volumeMounts"]}
    assert mounts["/var/cache/rerank/hub"]["readOnly"] is True
    assert COMMIT in cached(demo, "Downloaded")
    assert demo.get()["status"]["model"]["revision"] == COMMIT
    assert demo.condition()["reason"] == "RollingOut"


def test_cache_takes_so_many_writes_and_no_more(demo: Objects) -> None:
    demo.create(cache={})
    eventually(lambda: demo.child("Job"))
    demo.run_job({"running": {}})
    # Two things at once would be one pass, and one write.
    eventually(lambda: len(demo.writes()) == 6)
    demo.finish_download()

    eventually(lambda: demo.child("Deployment"))
    cached(demo, "Downloaded")

    job = demo.child("Job")["metadata"]["name"]
    assert demo.writes() == [
        "patch serviceaccounts/demo",
        "patch persistentvolumeclaims/demo",
        "patch services/demo",
        f"patch jobs/{job}",
        "patch rerankerservices/status/demo",
        # The pod is there.
        "patch rerankerservices/status/demo",
        "patch deployments/demo",
        "patch rerankerservices/status/demo",
    ]


# No other program listens there, as one may at 127.0.0.1.
POD_ADDRESS = "127.0.77.1"


class Downloader(HTTPServer):
    """A stand-in for a pod that downloads: a MiB more is there each time that it is asked."""

    asked = 0

    def __init__(self) -> None:
        super().__init__((POD_ADDRESS, HTTP_PORT), Answer)


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Downloader

    def do_GET(self) -> None:
        self.server.asked += 1
        progress = {"done_bytes": self.server.asked * 2**20, "total_bytes": 10 * 2**20}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(progress).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def downloader() -> Iterator[Downloader]:
    with Downloader() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def test_running_download_says_how_far_it_is_once_for_each_time_it_is_asked(
    demo: Objects, plane: ControlPlane, downloader: Downloader
) -> None:
    demo.create(cache={})
    job = eventually(lambda: demo.child("Job"))["metadata"]["name"]
    demo.run_job({"running": {"startedAt": "2026-11-23T01:00:00Z"}})
    eventually(lambda: "kubectl logs" in cached(demo, "Downloading"))
    before = len(demo.writes())

    pod = f"/api/v1/namespaces/{demo.namespace}/pods/{job}-pod/status"
    plane.patch(pod, {"status": {"podIP": POD_ADDRESS, "podIPs": [{"ip": POD_ADDRESS}]}})
    eventually(lambda: "(20 %)" in cached(demo, "Downloading"), 60)
    told = cached(demo, "Downloading")
    writes, asked = demo.writes()[before:], downloader.asked
    downloader.shutdown()
    downloader.server_close()

    assert "since 2026-11-23T01:00:00Z: 2.00 of 10.00 MiB (20 %)" in told
    assert set(writes) == {"patch rerankerservices/status/demo"}
    assert len(writes) <= asked
    # It is as before for a pod to which no way leads.
    eventually(lambda: "kubectl logs" in cached(demo, "Downloading"), 60)


def test_old_pods_stay_until_another_model_is_there(demo: Objects, plane: ControlPlane) -> None:
    demo.create(model=TOKEN, cache={})
    eventually(lambda: demo.child("Job"))
    demo.finish_download()
    before = eventually(lambda: demo.child("Deployment"))["spec"]["template"]
    first = demo.child("Job")["metadata"]["name"]

    change = {"model": {"name": "org/second"}, "engine": {"maxModelLen": 512}, "replicas": 3}
    plane.patch(demo.path, {"spec": change})
    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 3)
    failed = {"exitCode": 1, "message": "model not found: no org/second"}
    demo.run_job({"terminated": failed})
    told = cached(demo, "DownloadFailed")
    during = demo.child("Deployment")["spec"]["template"]
    jobs = [job["metadata"]["name"] for job in demo.jobs()]
    demo.finish_download(OTHER)

    eventually(lambda: variables(demo)["RERANK_REVISION"] == OTHER)
    assert during == before
    assert told.startswith("model not found: no org/second (tried once); until then the pods stay")
    assert len(jobs) == 1 and jobs[0] != first
    assert variables(demo)["RERANK_MODEL"] == "org/second"
    assert variables(demo)["RERANK_MAX_MODEL_LEN"] == "512"


def test_model_that_is_asked_for_again_is_still_there(demo: Objects, plane: ControlPlane) -> None:
    demo.create(model=TOKEN, cache={})
    eventually(lambda: demo.child("Job"))
    demo.finish_download()
    eventually(lambda: demo.child("Deployment"))
    plane.patch(demo.path, {"spec": {"model": {"name": "org/missing"}}})
    demo_job = eventually(
        lambda: demo.condition("ModelCached")["status"] == "False" and demo.jobs()
    )

    plane.patch(demo.path, {"spec": {"model": {"name": "org/first"}}})

    cached(demo, "Downloaded")
    eventually(lambda: demo.jobs() == [])
    assert len(demo_job) == 1


def test_download_whose_job_is_gone_is_not_begun_again(
    demo: Objects, plane: ControlPlane, operator: OperatorProcess
) -> None:
    demo.create(cache={})
    eventually(lambda: demo.child("Job"))
    demo.finish_download()
    cached(demo, "Downloaded")
    pod = f"/api/v1/namespaces/{demo.namespace}/pods/{demo.child('Job')['metadata']['name']}-pod"

    plane.delete(pod + "?gracePeriodSeconds=0")
    demo.delete_job()
    eventually(lambda: demo.jobs() == [])
    before = demo.writes()
    operator.restart()
    plane.patch(demo.path, {"spec": {"replicas": 2}})
    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)

    assert demo.jobs() == []
    assert variables(demo)["RERANK_REVISION"] == COMMIT
    assert not any("jobs" in write for write in demo.writes()[len(before) :])


def test_download_that_nobody_saw_the_end_of_runs_again(demo: Objects, plane: ControlPlane) -> None:
    demo.create(cache={})
    first = eventually(lambda: demo.child("Job"))

    path = demo.children["Job"].rpartition("/")[0] + f"/{first['metadata']['name']}/status"
    plane.patch(path, {"status": {"succeeded": 1}})

    eventually(lambda: first["metadata"]["uid"] not in uids(demo.jobs()) and demo.jobs())


def uids(objects: list[dict[str, Any]]) -> list[str]:
    return [each["metadata"]["uid"] for each in objects]


def test_other_token_begins_a_failed_download_anew(demo: Objects, plane: ControlPlane) -> None:
    demo.create(model=TOKEN, cache={})
    first = eventually(lambda: demo.child("Job"))
    demo.run_job({"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=2, lastState=FAILED)
    told = cached(demo, "DownloadFailed")

    plane.patch(demo.path, {"spec": {"model": {"tokenSecretRef": {"name": "other"}}}})

    eventually(
        lambda: [job["metadata"]["name"] for job in demo.jobs()] != [first["metadata"]["name"]]
    )
    eventually(lambda: len(demo.jobs()) == 1)
    assert told == "forbidden (403) (tried 2 times)"
    cached(demo, "Downloading")


FAILED = {"terminated": {"exitCode": 1, "message": "forbidden (403)"}}


@pytest.mark.parametrize("retain", [True, False])
def test_volume_goes_with_the_service_unless_it_is_kept(
    demo: Objects, plane: ControlPlane, retain: bool
) -> None:
    demo.create(cache={"retain": retain})

    volume = eventually(lambda: demo.child(CLAIM))
    plane.patch(demo.path, {"spec": {"cache": None}})
    eventually(lambda: demo.child("Deployment"))

    assert ("ownerReferences" in volume["metadata"]) is not retain
    assert ("deletionTimestamp" in demo.child(CLAIM)["metadata"]) is not retain


def test_retained_volume_is_found_by_a_service_of_the_same_name(
    demo: Objects, plane: ControlPlane
) -> None:
    demo.create(cache={"size": "5Gi"})
    volume = eventually(lambda: demo.child(CLAIM))
    plane.delete(demo.path)
    eventually(lambda: demo.get() == {})
    # Nobody collects garbage here.
    for kind in ("ServiceAccount", "Service"):
        plane.delete(demo.children[kind])
    demo.delete_job()

    demo.create(cache={"size": "1Gi"})

    eventually(lambda: demo.child("Job"))
    found = demo.child(CLAIM)
    assert found["metadata"]["uid"] == volume["metadata"]["uid"]
    assert found["spec"]["resources"]["requests"]["storage"] == "5Gi"
    assert demo.condition()["reason"] == "Downloading"


def test_claim_of_somebody_else_is_never_taken(demo: Objects, plane: ControlPlane) -> None:
    plane.apply(claim("demo", "ReadWriteOnce"), demo.namespace)

    demo.create(cache={})

    eventually(lambda: demo.condition()["reason"] == "NameConflict")
    assert demo.jobs() == []


def test_missing_claim_is_told_and_used_once_it_is_there(
    demo: Objects, plane: ControlPlane
) -> None:
    demo.create(cache={"existingClaim": "models"})
    told = cached(demo, "ClaimNotFound")

    plane.apply(claim("models", "ReadWriteMany"), demo.namespace)

    eventually(lambda: demo.child("Job"), 90)
    demo.finish_download()
    deployment = eventually(lambda: demo.child("Deployment"))
    assert told.startswith("spec.cache.existingClaim is models, and there is no such")
    assert "affinity" not in deployment["spec"]["template"]["spec"]
    assert demo.child(CLAIM) == {}


def test_what_a_claim_cannot_change_is_told_and_the_rest_goes_on(
    demo: Objects, plane: ControlPlane
) -> None:
    demo.create(cache={"storageClassName": "slow", "prefetch": False})
    eventually(lambda: demo.child(CLAIM))

    plane.patch(demo.path, {"spec": {"cache": {"storageClassName": "fast"}, "replicas": 2}})

    eventually(lambda: demo.condition()["reason"] == "ClaimUnfit")
    told = demo.condition()["message"]
    eventually(lambda: demo.child("Deployment")["spec"]["replicas"] == 2)
    demo.forget_claim()
    eventually(lambda: demo.condition()["reason"] != "ClaimUnfit", 30)
    assert "demo has storageClassName slow, not fast, and that cannot be changed: ask for" in told
    assert demo.child(CLAIM)["spec"]["storageClassName"] == "fast"


def test_own_volume_that_the_user_names_outlives_the_service(
    demo: Objects, plane: ControlPlane
) -> None:
    demo.create(cache={"retain": False, "size": "5Gi", "prefetch": False})
    eventually(lambda: demo.child("Deployment"))
    before = demo.child(CLAIM)

    own = {"existingClaim": "demo", "size": None, "retain": False}
    plane.patch(demo.path, {"spec": {"cache": own}})
    eventually(lambda: "ownerReferences" not in demo.child(CLAIM)["metadata"])
    told = demo.condition()["reason"]
    plane.patch(demo.path, {"spec": {"cache": None}})
    eventually(lambda: "persistentVolumeClaim" not in str(demo.child("Deployment")["spec"]))

    after = demo.child(CLAIM)
    assert told == "RollingOut"
    assert before["metadata"]["ownerReferences"]
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert "deletionTimestamp" not in after["metadata"]
    assert [write for write in demo.writes() if "persistentvolumeclaims" in write] == [
        "patch persistentvolumeclaims/demo",
        "patch persistentvolumeclaims/demo",
    ]


EDITS: list[dict[str, Any]] = [
    {"labels": {"rerank.dev/service": None}},
    {"ownerReferences": None},
    {"annotations": {"rerank.dev/applied-hash": "x"}},
]


@pytest.mark.parametrize("edit", EDITS, ids=str)
@pytest.mark.parametrize("kind", [CLAIM, "Job"])
def test_edit_of_the_volume_or_the_job_is_put_back(
    demo: Objects, plane: ControlPlane, kind: str, edit: dict[str, Any]
) -> None:
    demo.create(cache={"retain": False})
    child = eventually(lambda: demo.child(kind))
    path = demo.children[kind].rpartition("/")[0] + "/" + child["metadata"]["name"]

    plane.patch(path, {"metadata": edit})

    def marks() -> list[Any]:
        metadata = plane.get(path)["metadata"]
        return [metadata.get(part) for part in ("uid", "labels", "annotations", "ownerReferences")]

    metadata = child["metadata"]
    before = [metadata.get(part) for part in ("uid", "labels", "annotations", "ownerReferences")]
    eventually(lambda: marks() == before)


def test_switch_of_retain_changes_who_owns_the_volume(demo: Objects, plane: ControlPlane) -> None:
    demo.create(cache={})
    eventually(lambda: demo.child(CLAIM))

    plane.patch(demo.path, {"spec": {"cache": {"retain": False}}})
    eventually(lambda: "ownerReferences" in demo.child(CLAIM)["metadata"])
    plane.patch(demo.path, {"spec": {"cache": {"retain": True}}})

    eventually(lambda: "ownerReferences" not in demo.child(CLAIM)["metadata"])
