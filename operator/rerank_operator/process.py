"""One operator from start to stop: it lists, watches, works while it leads, and drains."""

import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp

from rerank_operator import __version__, handlers
from rerank_operator.cluster import Cluster, Fence, connect, open_fence
from rerank_operator.election import Election
from rerank_operator.errors import NotFound, OperatorError, Refused
from rerank_operator.health import Health, Watches, serve
from rerank_operator.metrics import Metrics
from rerank_operator.names import JOBS, OPTIONAL_KINDS, WATCHED_KINDS
from rerank_operator.prefetch import is_under_way, may_be_asked
from rerank_operator.progress import Downloads
from rerank_operator.reconcile import Reconciler
from rerank_operator.settings import Settings
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)

# kopf lists for itself after we did and keeps quiet about what was deleted in between.
SECOND_LISTING_SECONDS = 30.0
RETRY_SECONDS = 2.0
# Nothing that is watched tells how far a download is, nor what keeps it from its pod. Each time may
# write a status.
REVISIT_SECONDS = 15.0
# On a signal, passes under way may end; Kubernetes kills half a minute after it.
DRAIN_SECONDS = 10.0
STOP_SECONDS = 25
# After the last that matters, for closing connections.
END_SECONDS = 5


async def run(settings: Settings) -> None:
    """Run until a signal, or until a part of the operator fails.

    Raises:
        LeaseLost: another operator is at work.
    """
    # For peering, which is off. Without it kopf looks its user up in passwd, and has none there.
    os.environ.setdefault("POD_ID", "rerank-operator")
    stop = asyncio.Event()
    # As process 1 of a container, a program without a handler never gets the signal.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics, watches, store = Metrics(), Watches(), Store()
    fence = Fence() if settings.lease else open_fence()
    # Unlike the pod's name it is another one after each start, and belongs to one process alone.
    identity = f"{socket.gethostname()}_{uuid4().hex[:8]}"
    async with (
        connect(identity, fence, metrics) as cluster,
        aiohttp.ClientSession(trust_env=False) as session,
    ):
        downloads = Downloads(session)
        reconciler = Reconciler(store, cluster, settings, lambda: datetime.now(UTC), downloads.seen)
        queue = WorkQueue(_guarded(reconciler), metrics=metrics)
        election = _election(cluster, settings, identity, fence)
        lease_silent_seconds = election.silent_seconds if election else lambda: 0.0
        metrics.leader.labels(settings.lease).set_function(fence.is_open)
        health = Health(queue, watches, lease_silent_seconds, cluster.answers)
        memo = handlers.Memo(store, queue, watches, metrics, identity)
        log.info(
            "starting",
            extra={
                "version": __version__,
                "namespaces": settings.namespaces,
                "identity": identity,
            },
        )
        async with serve(health, metrics, settings.health_port, settings.metrics_port):
            stopping = asyncio.create_task(stop.wait(), name="stop")
            leading = asyncio.create_task(
                _lead(election, health.synced, queue, settings.workers), name="lead"
            )
            watching = asyncio.create_task(
                _watch(cluster, memo, health, settings, stop, downloads), name="watch"
            )
            done, _ = await asyncio.wait(
                {stopping, leading, watching}, return_when=asyncio.FIRST_COMPLETED
            )
            # Whatever hangs from here on does not outlive this: the default action is to end.
            signal.alarm(STOP_SECONDS)
            drained = await queue.drain(DRAIN_SECONDS)
            await _cancelled(leading)
            # A write that was cut off may still take effect: then the Lease runs out by itself.
            if election and drained:
                await election.release()
            signal.alarm(END_SECONDS)
            await _cancelled(watching, stopping)
            for task in done:
                task.result()


def _election(cluster: Cluster, settings: Settings, identity: str, fence: Fence) -> Election | None:
    namespace, _, name = settings.lease.partition("/")
    return Election(cluster, namespace, name, identity, fence) if name else None


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def _lead(
    election: Election | None, synced: asyncio.Event, queue: WorkQueue[Key], workers: int
) -> None:
    """Work on the queue, for as long as no other operator does.

    Not before all is listed: who cannot list must not keep the Lease from one that can.

    Raises:
        LeaseLost: another operator does.
    """
    await synced.wait()
    if election is None:
        await queue.run(workers)
        return
    await election.acquire()
    working = asyncio.create_task(queue.run(workers), name="queue")
    renewing = asyncio.create_task(election.hold(), name="renew")
    try:
        done, _ = await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await _cancelled(working, renewing)


async def _watch(
    cluster: Cluster,
    memo: handlers.Memo,
    health: Health,
    settings: Settings,
    stop: asyncio.Event,
    downloads: Downloads,
) -> None:
    """List and watch for ever, also on an operator that stands by."""
    changed: set[Key] = set()
    # No pass before all is listed: what is not in the store is taken for absent.
    async for keys in _list_all(cluster, memo.store, settings.namespaces):
        changed |= keys
    for key in memo.store.keys() | changed:
        memo.queue.add(key)
    health.synced.set()
    log.info("watching", extra={"services": len(memo.store.keys())})
    async with asyncio.TaskGroup() as group:
        group.create_task(_resync(cluster, memo, settings), name="resync")
        group.create_task(_revisit(memo, downloads), name="revisit")
        group.create_task(handlers.watch(memo, settings.namespaces, stop.set), name="kopf")


def _guarded(reconciler: Reconciler) -> Callable[[Key], Awaitable[bool]]:
    async def work(key: Key) -> bool:
        try:
            return await reconciler.reconcile(key)
        except Exception:
            # One object that trips a fault of ours must not keep the others from their passes.
            log.exception(
                "pass failed", extra={"namespace": key.namespace, "service": key.instance}
            )
            return False

    return work


async def _list_all(
    cluster: Cluster, store: Store, namespaces: Sequence[str]
) -> AsyncIterator[set[Key]]:
    """List every kind, for as long as it takes; yield the keys that something changed for.

    A namespace that is named and refused is left out, or nothing would be done in any other: it was
    deleted most likely, and our rights with it. That its watches are refused shows in /readyz.
    """
    for kind in (*WATCHED_KINDS, *OPTIONAL_KINDS):
        listing, optional = store.listing(kind), kind in OPTIONAL_KINDS
        scopes: Sequence[str | None] = namespaces or [None]
        for scope in scopes:
            while True:
                try:
                    async for bodies, version in cluster.pages(kind, scope):
                        yield listing.take(bodies, version)
                    break
                except OperatorError as error:
                    # Else NotFound means that our CustomResourceDefinition is yet to be installed.
                    if optional and isinstance(error, (NotFound, Refused)):
                        break
                    told = {"kind": kind.name, "namespace": scope, "error": str(error)}
                    log.warning("cannot list", extra=told)
                    if scope is not None and isinstance(error, Refused):
                        listing.leave_out(scope)
                        break
                    await asyncio.sleep(RETRY_SECONDS)
        yield listing.end()


async def _revisit(memo: handlers.Memo, downloads: Downloads) -> None:
    """Ask for a pass of each service whose model is yet to be downloaded, now and then."""
    while True:
        await asyncio.sleep(REVISIT_SECONDS)
        keys = memo.store.keys()
        services = [key for key in keys if _downloads(memo.store, key)]
        pods = [pod for key in services for pod in memo.store.pods(key)]
        try:
            await downloads.ask([pod for pod in pods if may_be_asked(pod)])
        except Exception:
            # What a pod answers is not ours. It may cost the figures, and nothing else.
            log.exception("pods not asked how far they are")
        for key in services:
            memo.queue.add(key)


def _downloads(store: Store, key: Key) -> bool:
    return any(map(is_under_way, store.of_kind(key, JOBS)))


async def _resync(cluster: Cluster, memo: handlers.Memo, settings: Settings) -> None:
    seconds = min(SECOND_LISTING_SECONDS, settings.resync_seconds)
    while True:
        await asyncio.sleep(seconds)
        async for keys in _list_all(cluster, memo.store, settings.namespaces):
            # At once: a kind that cannot be listed may take hours.
            for key in keys:
                memo.queue.add(key)
        services = memo.store.keys()
        for key in services:
            memo.queue.add(key)
        log.debug("listed again", extra={"services": len(services)})
        seconds = settings.resync_seconds * random.uniform(0.9, 1.1)
