"""One pass: read, decide, apply, prune, write the status."""

import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from pydantic import ValidationError

from rerank_operator import drift, names
from rerank_operator.api import Manifest, RerankerService, RerankerServiceStatus, parse
from rerank_operator.errors import (
    Conflict,
    InvalidSpec,
    NotFound,
    OperatorError,
    Refused,
    Unavailable,
)
from rerank_operator.events import build_event
from rerank_operator.names import Kind
from rerank_operator.observed import Observed, Progress, lacks_room
from rerank_operator.ownership import applied_hash, is_ours, outlives, with_owner
from rerank_operator.prefetch import FAILED_CREATE, Outlook, look, refusal, without_pod
from rerank_operator.resources import desired
from rerank_operator.settings import Settings
from rerank_operator.status import Finding, build_status, invalid_status, refusal_reason
from rerank_operator.store import Key, Store

log = logging.getLogger(__name__)

# A device that has just become free is still "Insufficient" for as long as the scheduler backs off
# from the pod, which is 10 s at most. Taken too early, that would end a pod that serves.
ROOM_WAIT = timedelta(seconds=15)


class Cluster(Protocol):
    """What a pass asks of the API server.

    Each call raises `Refused` for what the server will not do and `Unavailable` for what it
    cannot do now.
    """

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None: ...

    async def apply(self, kind: Kind, manifest: Manifest) -> Manifest: ...

    async def apply_new(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Raises `Conflict`, and changes nothing, where an object of that name is."""

    async def apply_status(self, kind: Kind, manifest: Manifest) -> Manifest:
        """Raises `NotFound` as well: unlike `apply` this creates nothing."""

    async def create(self, kind: Kind, manifest: Manifest) -> None: ...

    async def events(self, manifest: Manifest, reason: str) -> list[Manifest]: ...

    async def delete(self, kind: Kind, manifest: Manifest) -> None: ...


class Reconciler:
    """Makes the cluster hold what each RerankerService asks for.

    Keeps nothing between passes but since when a rollout has lacked room, which wait a restart
    begins anew, and which intents took the place of others, to know another operator by.
    """

    def __init__(
        self,
        store: Store,
        cluster: Cluster,
        settings: Settings,
        clock: Callable[[], datetime],
        progress: Mapping[str, Progress] = {},
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._progress = progress
        self._lacks_room_since: dict[Key, datetime] = {}
        # By the child's title, the mark of the intent.
        self._updated: dict[Key, dict[str, str]] = {}

    async def reconcile(self, key: Key) -> bool:
        """Run one pass, and return whether it is settled; if not it wants another, later."""
        try:
            return await self._pass(key)
        except Unavailable as error:
            log.warning("API server unavailable, will retry", extra=_about(key, error=str(error)))
            return False

    async def _pass(self, key: Key) -> bool:
        body = self._store.reranker(key)
        # The children of one that goes are the garbage collector's, by their ownerReferences.
        if body is None or "deletionTimestamp" in body["metadata"]:
            self._lacks_room_since.pop(key, None)
            self._updated.pop(key, None)
            return True
        try:
            reranker = parse(body)
        except InvalidSpec as error:
            self._lacks_room_since.pop(key, None)
            generation = body["metadata"].get("generation", 0)
            status = invalid_status(generation, str(error), _status(body), self._clock())
            return await self._write_status(key, body, status)
        settled, problems = True, dict[Kind, Finding]()
        outlook = await self._look(key, reranker, body)
        if reranker.spec.paused:
            self._lacks_room_since.pop(key, None)
        else:
            settled, problems = await self._carry_out(key, reranker, outlook)
            if outlook.found.waits and outlook.found.claim is None:
                # The volume may have been made just now, and then so can what needs it.
                outlook = await self._look(key, reranker, body)
                if outlook.found.claim is not None:
                    settled, problems = await self._carry_out(key, reranker, outlook)
        if outlook.problem is not None:
            problems.setdefault(names.CLAIMS, outlook.problem)
        servers, _ = self._pods(key)
        status = build_status(
            reranker,
            self._own(key, names.DEPLOYMENTS, reranker),
            self._own(key, names.SERVICES, reranker),
            self._autoscaler(key, reranker),
            servers,
            problems,
            _status(body),
            self._clock(),
            outlook.cached,
            outlook.model,
        )
        written = await self._write_status(key, body, status)
        return settled and written and not problems

    async def _look(self, key: Key, reranker: RerankerService, body: Manifest) -> Outlook:
        """Return what has become of the volume, and of the download to it."""
        cache = reranker.spec.cache
        claim = self._own(key, names.CLAIMS, reranker)
        if cache is not None and cache.existing_claim is not None:
            # Without our label it is in no watch.
            claim = await self._cluster.get(names.CLAIMS, key.namespace, cache.existing_claim)
        jobs = self._store.of_kind(key, names.JOBS)
        deployment = self._own(key, names.DEPLOYMENTS, reranker)
        _, downloads = self._pods(key)
        refusal = await self._refusal(key, without_pod(jobs, downloads, self._clock()))
        return look(
            reranker,
            claim,
            deployment,
            jobs,
            downloads,
            _status(body).model,
            refusal,
            self._progress,
        )

    async def _refusal(self, key: Key, job: Manifest | None) -> str:
        """Return why the API server lets no pod of a Job be made; "" when nothing says so."""
        if job is None:
            return ""
        try:
            return refusal(await self._cluster.events(job, FAILED_CREATE), self._clock())
        except OperatorError as error:
            # The role may be that of an earlier version, and Events may be away; nothing else
            # depends on them.
            log.debug("events not read", extra=_about(key, error=str(error)))
            return ""

    def _pods(self, key: Key) -> tuple[list[Manifest], list[Manifest]]:
        """Return the pods that serve, and those that download."""
        servers: list[Manifest] = []
        downloads: list[Manifest] = []
        for pod in self._store.pods(key):
            downloading = names.DOWNLOAD_LABEL in pod["metadata"].get("labels", {})
            (downloads if downloading else servers).append(pod)
        return servers, downloads

    async def _carry_out(
        self, key: Key, reranker: RerankerService, outlook: Outlook
    ) -> tuple[bool, dict[Kind, Finding]]:
        """Apply what is wanted and delete what is not.

        Return whether nothing had to be put back, and the problems of the kinds that had one.
        """
        problems: dict[Kind, Finding] = {}
        observed = self._observed(key, reranker)
        # Nothing else tells when the wait is over.
        settled = observed.short or key not in self._lacks_room_since
        children = desired(reranker, self._settings, observed, outlook.found)
        wanted = [with_owner(reranker, manifest) for manifest in children]
        for manifest in wanted:
            kind = names.KIND_BY_NAME[manifest["kind"]]
            if (other := self._other_autoscaler(key, manifest)) is not None:
                problems[kind] = Finding(
                    names.AUTOSCALER_SWITCHING, f"waits until {_title(other)} is gone"
                )
                continue
            try:
                settled &= await self._apply(key, manifest, reranker)
            except _NameTaken as error:
                problems[kind] = Finding(names.NAME_CONFLICT, str(error))
            except NotFound as error:
                problems[kind] = _absent(kind, f"{_title(manifest)}: {error}")
            except Refused as error:
                problems[kind] = _refused(kind, f"{_title(manifest)}: {error}")
        for kind, finding in (await self._prune(key, wanted, reranker, outlook.kept)).items():
            problems.setdefault(kind, finding)
        return settled, problems

    def _observed(self, key: Key, reranker: RerankerService) -> Observed:
        deployment = self._own(key, names.DEPLOYMENTS, reranker)
        pods, _ = self._pods(key)
        if not lacks_room(deployment, pods):
            self._lacks_room_since.pop(key, None)
            return Observed(deployment, pods)
        now = self._clock()
        since = self._lacks_room_since.setdefault(key, now)
        return Observed(deployment, pods, now - since >= ROOM_WAIT)

    async def _apply(self, key: Key, manifest: Manifest, reranker: RerankerService) -> bool:
        """Make one child as it should be. False: it had to be put back, so look again soon.

        Raises:
            _NameTaken: an object of that name is there and is not ours.
        """
        kind = names.KIND_BY_NAME[manifest["kind"]]
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        known = self._store.of_kind(key, kind)
        observed = next((child for child in known if _name(child) == name), None)
        unwatched = kind in names.OPTIONAL_KINDS
        if observed is None or (unwatched and not is_ours(observed, reranker)):
            # No watch shows an object without our label, and a forced apply would take it over;
            # nor that one of a kind without a watch went with an earlier service of the name.
            try:
                self._store.put(await self._cluster.apply_new(kind, manifest))
            except Conflict:
                observed = await self._cluster.get(kind, namespace, name)
                if observed is None:
                    # It went in between, or a webhook or a quota has said so.
                    raise
            else:
                self._updated.get(key, {}).pop(_title(manifest), None)
                log.info("child created", extra=_about(key, child=_title(manifest)))
                return True
        if not is_ours(observed, reranker):
            raise _NameTaken(
                f"{_title(manifest)} exists and does not belong to this RerankerService: "
                "remove it, or give the RerankerService another name"
            )
        if unwatched and "deletionTimestamp" in observed["metadata"]:
            # Nothing tells when it has gone, and another is needed.
            return False
        same_intent = applied_hash(observed) == applied_hash(manifest)
        if same_intent and drift.holds(observed, manifest):
            if unwatched:
                # Nothing else tells of one that was made without an answer that we saw.
                self._store.put(observed)
            return True
        # With the UID the apply cannot reach an object that took the place of the one seen here.
        metadata = manifest["metadata"] | {"uid": observed["metadata"]["uid"]}
        self._store.put(await self._cluster.apply(kind, manifest | {"metadata": metadata}))
        if same_intent:
            log.info("child put back", extra=_about(key, child=_title(manifest)))
            return False
        updated = self._updated.setdefault(key, {})
        mark, title = applied_hash(manifest) or "", _title(manifest)
        if updated.get(title) == mark:
            # Nobody else writes these marks. Two that never rest would write all the time.
            log.warning("another operator changes this child", extra=_about(key, child=title))
            return False
        updated[title] = mark
        log.info("child updated", extra=_about(key, child=title))
        return True

    async def _prune(
        self, key: Key, wanted: list[Manifest], reranker: RerankerService, kept: str | None
    ) -> dict[Kind, Finding]:
        """Delete what is ours and not wanted; return what the API server would not delete."""
        problems: dict[Kind, Finding] = {}
        titles = {_title(manifest) for manifest in wanted}
        if reranker.spec.cache is not None and reranker.spec.cache.existing_claim is not None:
            # It may have been one of ours before.
            titles.add(f"{names.CLAIMS.name} {reranker.spec.cache.existing_claim}")
        for child in self._store.children(key):
            if (
                _title(child) not in titles
                and is_ours(child, reranker)
                and not outlives(child, kept)
                and "deletionTimestamp" not in child["metadata"]
            ):
                kind = names.KIND_BY_NAME[child["kind"]]
                try:
                    await self._cluster.delete(kind, child)
                except Refused as error:
                    problems[kind] = Finding(
                        names.APPLY_REFUSED, f"delete {_title(child)}: {error}"
                    )
                else:
                    if kind in names.OPTIONAL_KINDS:
                        # No watch will tell.
                        self._store.put(child, deleted=True)
                    log.info("child deleted", extra=_about(key, child=_title(child)))
        return problems

    def _own(self, key: Key, kind: Kind, reranker: RerankerService) -> Manifest | None:
        """Return the child of this kind; None while it is not there or its name is another's."""
        known = self._store.of_kind(key, kind)
        return next(
            (each for each in known if _name(each) == key.instance and is_ours(each, reranker)),
            None,
        )

    def _autoscaler(self, key: Key, reranker: RerankerService) -> Manifest | None:
        """Return the HorizontalPodAutoscaler at work, whoever made it."""
        scaling = reranker.spec.autoscaling
        name = names.autoscaler(key.instance, scaling.type == "keda") if scaling else ""
        known = self._store.of_kind(key, names.AUTOSCALERS)
        return next((each for each in known if _name(each) == name), None)

    def _other_autoscaler(self, key: Key, manifest: Manifest) -> Manifest | None:
        """Return one that has to go before `manifest` may come: two would pull at the same pods."""
        if manifest["kind"] not in (names.AUTOSCALERS.name, names.SCALED_OBJECTS.name):
            return None
        name = names.autoscaler(key.instance, manifest["kind"] == names.SCALED_OBJECTS.name)
        known = self._store.of_kind(key, names.AUTOSCALERS)
        return next((each for each in known if _name(each) != name), None)

    async def _write_status(self, key: Key, body: Manifest, status: RerankerServiceStatus) -> bool:
        if status == _status(body):
            log.debug("nothing changed", extra=_about(key))
            return True
        metadata = body["metadata"]
        manifest = {
            "apiVersion": names.RERANKERS.api_version,
            "kind": names.RERANKERS.name,
            "metadata": {part: metadata[part] for part in ("name", "namespace", "uid")},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            written = await self._cluster.apply_status(names.RERANKERS, manifest)
        except NotFound:
            return True
        except Refused as error:
            # Most likely deleted and made anew: the event of that is on its way.
            log.warning("status refused", extra=_about(key, error=str(error)))
            return False
        self._store.put(written)
        conditions = {condition.type: condition for condition in status.conditions}
        ready = conditions[names.READY]
        log.info(
            "status changed",
            extra=_about(key, ready=ready.status, reason=ready.reason, detail=ready.message),
        )
        await self._post(key, build_event(body, _status(body), status, self._clock()))
        # What was asked for may have changed during the pass. Its event can come after this
        # answer, which holds the change already, and then tells nothing new.
        return bool(written["metadata"]["generation"] == metadata["generation"])

    async def _post(self, key: Key, event: Manifest | None) -> None:
        if event is None:
            return
        try:
            await self._cluster.create(names.EVENTS, event)
        except OperatorError as error:
            # The condition says the same, so nothing depends on it.
            log.debug("event not written", extra=_about(key, error=str(error)))


class _NameTaken(Exception):
    """An object that is not ours has the name that one of ours needs."""


def _absent(kind: Kind, message: str) -> Finding:
    """Return what it means that the API server does not know a kind, or no longer the namespace."""
    if kind == names.POD_MONITORS:
        return Finding(
            names.POD_MONITOR_MISSING,
            "spec.monitoring.podMonitor is true, but the cluster has no PodMonitor kind: "
            "install the Prometheus operator, or set it to false",
        )
    if kind == names.SCALED_OBJECTS:
        return Finding(
            names.KEDA_MISSING,
            "spec.autoscaling.type is keda, but the cluster has no ScaledObject kind: install "
            "KEDA, or set the type to hpa; until then the number of pods stays as it is",
        )
    return Finding(names.APPLY_REFUSED, message)


def _refused(kind: Kind, message: str) -> Finding:
    if kind == names.SCALED_OBJECTS and "field not declared in schema" in message:
        return Finding(names.KEDA_TOO_OLD, f"upgrade KEDA to 2.20 or later: {message}")
    return Finding(refusal_reason(message, names.APPLY_REFUSED), message)


def _status(body: Mapping[str, Any]) -> RerankerServiceStatus:
    try:
        return RerankerServiceStatus.model_validate(body.get("status", {}))
    except ValidationError:
        # Written by another version: all of it is found anew, and only transition times are lost.
        return RerankerServiceStatus()


def _name(manifest: Mapping[str, Any]) -> str:
    return str(manifest["metadata"]["name"])


def _title(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _about(key: Key, **values: str) -> dict[str, str]:
    return {"namespace": key.namespace, "service": key.instance, **values}
