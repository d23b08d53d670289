"""What has become of the volume and of the download to it, and what follows. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from rerank_operator import names
from rerank_operator.api import Manifest, ModelStatus, RerankerService, secrets_used
from rerank_operator.observed import Progress, conditions
from rerank_operator.resources.cache import (
    SHARED_MODES,
    Found,
    build_claim,
    differences,
    download_id,
    prefetches,
)
from rerank_operator.status import Finding, refusal_reason
from rerank_operator.status.pods import affinity_note, pod_finding

# A Job's controller makes the pod at once, and says so at once when it may not.
NO_POD_WAIT = timedelta(seconds=5)
# It tries again, and says so again, more often than this. What is older may be long over.
REFUSAL_AGE = timedelta(minutes=15)
# The reason of the Event in which it says so.
FAILED_CREATE = "FailedCreate"
# That the API server puts into the template of each Job.
_JOB_LABEL = "batch.kubernetes.io/job-name"
# What keeps a pod from starting is told by these; all else is about the download itself.
_ABOUT_THE_POD = {
    names.CONTAINER_REFUSED,
    names.IMAGE_PULL_FAILED,
    names.OUT_OF_MEMORY,
    names.SECRET_NOT_FOUND,
    names.UNSCHEDULABLE,
    names.WAITING_FOR_GPU,
}


class Outlook(NamedTuple):
    """What was found, and what the status says of it.

    `problem` is one of the volume. `cached` is the verdict of ModelCached; None without a download.
    `model` is what pods are started with, also while another one is downloaded. Jobs of the label
    `kept` have done their work.
    """

    found: Found
    problem: Finding | None = None
    cached: tuple[bool, Finding] | None = None
    model: ModelStatus | None = None
    kept: str | None = None


class Outcome(BaseModel):
    """The last words of a download that succeeded."""

    model: str
    revision: str


def is_under_way(job: Manifest) -> bool:
    """Tell whether a Job has its work before it: it has not ended, well or otherwise."""
    ended = [conditions(job).get(name, {}).get("status") for name in ("Complete", "Failed")]
    return "True" not in ended and not job.get("status", {}).get("succeeded")


def may_be_asked(pod: Manifest) -> bool:
    """Tell whether a pod downloads now, so that it knows how far it is."""
    return (
        _label(pod) is not None
        and "running" in _container(pod).get("state", {})
        and "podIP" in pod["status"]
    )


def without_pod(
    jobs: Sequence[Manifest], pods: Sequence[Manifest], now: datetime
) -> Manifest | None:
    """Return the newest Job, if it is under way and nobody has made a pod for it."""
    job = max(jobs, key=lambda job: str(job["metadata"]["creationTimestamp"]), default=None)
    if job is None or not is_under_way(job):
        return None
    age = now - datetime.fromisoformat(job["metadata"]["creationTimestamp"])
    has_pod = any(_job_of(pod) == _name(job) for pod in pods)
    return None if has_pod or age < NO_POD_WAIT else job


def refusal(events: Sequence[Manifest], now: datetime) -> str:
    """Return the words of the latest of some Events that are not old; "" without any."""
    fresh = [event for event in events if now - _last_seen(event) < REFUSAL_AGE]
    latest = max(fresh, key=_last_seen, default={})
    return str(latest.get("note", ""))


def _last_seen(event: Manifest) -> datetime:
    # Of a library that knows only the older form of Events, which the Job's controller uses.
    seen = event.get("deprecatedLastTimestamp") or event["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(seen)


def look(
    reranker: RerankerService,
    claim: Manifest | None,
    deployment: Manifest | None,
    jobs: Sequence[Manifest],
    pods: Sequence[Manifest],
    current: ModelStatus | None,
    refusal: str = "",
    progress: Mapping[str, Progress] = {},
) -> Outlook:
    """Return what is to be made of a volume and of the Jobs that fill it.

    `claim` is the user's or ours. `pods` are those of Jobs. `current` is from the status: it
    outlives Job and pods. `refusal` is why a Job without a pod gets none,
    and `progress` how far pods are, by their UIDs.
    """
    cache = reranker.spec.cache
    if cache is None:
        return Outlook(Found(None, None, waits=False, downloads=False))
    problem = _claim_problem(reranker, claim)
    usable = claim is not None and (problem is None or cache.existing_claim is None)
    if not prefetches(reranker):
        found = Found(claim, None, waits=not usable, downloads=False)
        return Outlook(found, problem)
    if not usable:
        found = Found(claim, None, waits=True, downloads=False)
        finding = problem or Finding(names.DOWNLOADING, "the volume is yet to be made")
        return Outlook(found, problem, (False, finding), current)
    download = download_id(reranker, claim)
    jobs = [job for job in jobs if _label(job) == download]
    pods = [pod for pod in pods if _label(pod) == download]
    model = current if current and current.download == download else _result(pods, download)
    if model is not None and model.name == reranker.spec.model.name:
        found = Found(claim, model, waits=False, downloads=False)
        text = f"{model.name} at commit {model.revision} is on volume {_name(claim)}"
        return Outlook(found, problem, (True, Finding(names.DOWNLOADED, text)), model, download)
    # Its pod is gone, and what it said with it. To run again takes little: the files are there.
    lost = not pods and any(job.get("status", {}).get("succeeded") for job in jobs)
    found = Found(claim, None, waits=True, downloads=not lost)
    finding = _progress(reranker, jobs, pods, refusal, progress)
    if deployment is not None:
        finding = Finding(
            finding.reason, f"{finding.message}; until then the pods stay as they are"
        )
    return Outlook(found, problem, (False, finding), current)


def _claim_problem(reranker: RerankerService, claim: Manifest | None) -> Finding | None:
    cache = reranker.spec.cache
    if cache is None:
        return None
    if cache.existing_claim is None:
        wanted = build_claim(reranker, None)
        if wanted is None or claim is None:
            return None
        held = claim["spec"]
        other = differences(wanted["spec"], held)
        if not other:
            return None
        # It would set the replicas again.
        first = "take spec.autoscaling out, " if reranker.spec.autoscaling else ""
        texts = [f"{part} {_text(held[part])}, not {_text(wanted['spec'][part])}" for part in other]
        return Finding(
            names.CLAIM_UNFIT,
            f"PersistentVolumeClaim {_name(claim)} has {' and '.join(texts)}, and that cannot be "
            f"changed: ask for what it has in spec.cache, or {first}set replicas to 0 and delete "
            "the claim, and it is made anew",
        )
    about = f"spec.cache.existingClaim is {cache.existing_claim}"
    if claim is None:
        return Finding(
            names.CLAIM_NOT_FOUND,
            f"{about}, and there is no such PersistentVolumeClaim: create it, and all goes on",
        )
    modes = set(claim["spec"]["accessModes"])
    if not modes & {"ReadWriteOnce", *SHARED_MODES}:
        return Finding(
            names.CLAIM_UNFIT,
            f"{about}, which one pod alone may use ({_text(sorted(modes))}): name one that is "
            "ReadWriteOnce or ReadWriteMany",
        )
    if modes == {"ReadOnlyMany"} and prefetches(reranker):
        return Finding(
            names.CLAIM_UNFIT,
            f"{about}, which can only be read: set spec.cache.prefetch to false, and "
            "spec.model.name to the model's directory",
        )
    return None


def _result(pods: Sequence[Manifest], download: str) -> ModelStatus | None:
    """Return what the container of a pod has left when it ended well."""
    for pod in pods:
        ended = _container(pod).get("state", {}).get("terminated", {})
        if ended.get("exitCode") == 0 and (outcome := _outcome(ended)):
            return ModelStatus(name=outcome.model, revision=outcome.revision, download=download)
    return None


def _outcome(ended: Manifest) -> Outcome | None:
    try:
        return Outcome.model_validate_json(ended.get("message", ""))
    except ValidationError:
        return None


def _progress(
    reranker: RerankerService,
    jobs: Sequence[Manifest],
    pods: Sequence[Manifest],
    refusal: str,
    progress: Mapping[str, Progress],
) -> Finding:
    """Return how a download that is not over does."""
    model = reranker.spec.model.name
    for job in jobs:
        for condition in job.get("status", {}).get("conditions", []):
            if condition["type"] == "Failed" and condition["status"] == "True":
                why = f"{condition.get('reason', '')}: {condition.get('message', '')}"
                return Finding(
                    names.DOWNLOAD_FAILED,
                    f"Job {_name(job)} was ended ({why}): delete it, and it is begun again",
                )
    # Those of a Job that was just replaced are on their way out.
    there = {_name(job) for job in jobs}
    live = [
        pod for pod in pods if _job_of(pod) in there and "deletionTimestamp" not in pod["metadata"]
    ]
    if not live and refusal:
        reason = refusal_reason(refusal, names.PODS_REFUSED)
        return Finding(reason, f"no pod can be made to download {model}: {refusal}")
    if not live:
        return Finding(names.DOWNLOADING, f"a Job is about to download {model}")
    pod = max(live, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
    container = _container(pod)
    if container.get("state", {}).get("terminated", {}).get("exitCode") == 0:
        return Finding(
            names.DOWNLOAD_FAILED,
            f"pod {_name(pod)} ended well, but did not say which commit of {model} it has: is "
            "spec.image a server of this version?",
        )
    secrets = list(secrets_used(reranker.spec))
    finding = pod_finding(pod, secrets, names.DOWNLOAD_CONTAINER)
    if finding is not None and finding.reason in _ABOUT_THE_POD:
        (job,) = (job for job in jobs if _name(job) == _job_of(pod))
        notes = affinity_note(finding, job["spec"]["template"])
        return Finding(finding.reason, "; ".join([finding.message, *notes]))
    # Told until it succeeds, also while it runs again: it most likely ends in the same way.
    ended = container.get("state", {}).get("terminated") or container.get("lastState", {}).get(
        "terminated"
    )
    if ended:
        tries = container.get("restartCount", 0) + ("terminated" in container.get("state", {}))
        said = " ".join(ended.get("message", "").split()) or f"exit code {ended.get('exitCode')}"
        often = "once" if tries == 1 else f"{tries} times"
        return Finding(names.DOWNLOAD_FAILED, f"{said} (tried {often})")
    running = container.get("state", {}).get("running")
    if running is None:
        return Finding(names.DOWNLOADING, f"pod {_name(pod)}, to download {model}, is starting")
    since = running.get("startedAt", "")
    how_far = f"`kubectl logs {_name(pod)}` says how far it is"
    if (found := progress.get(pod["metadata"].get("uid", ""))) is not None:
        how_far = _amount(found)
    return Finding(names.DOWNLOADING, f"{model} is being downloaded since {since}: {how_far}")


def _amount(progress: Progress) -> str:
    total = progress.total_bytes
    # What another pod on the same volume is about to give up counts as well.
    done = min(progress.done_bytes, total)
    unit, size = ("GiB", 2**30) if total >= 2**30 else ("MiB", 2**20)
    return f"{done / size:.2f} of {total / size:.2f} {unit} ({100 * done // total} %)"


def _container(pod: Manifest) -> Manifest:
    containers: list[Manifest] = pod.get("status", {}).get("containerStatuses", [])
    return next((one for one in containers if one["name"] == names.DOWNLOAD_CONTAINER), {})


def _job_of(pod: Manifest) -> str:
    return str(pod["metadata"].get("labels", {}).get(_JOB_LABEL, ""))


def _label(manifest: Manifest) -> str | None:
    label: str | None = manifest["metadata"].get("labels", {}).get(names.DOWNLOAD_LABEL)
    return label


def _name(manifest: Manifest | None) -> str:
    return str(manifest["metadata"]["name"]) if manifest else ""


def _text(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
