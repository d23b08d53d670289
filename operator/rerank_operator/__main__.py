"""`rerank-operator run|crd|render`: parse arguments, set up logging, start."""

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import yaml
from pydantic import ValidationError

from rerank_operator import __version__, handlers
from rerank_operator.api import parse
from rerank_operator.cluster import Cluster, Fence, connect, open_fence
from rerank_operator.crd import build_crd
from rerank_operator.election import Election
from rerank_operator.errors import InvalidSpec, LeaseLost, OperatorError
from rerank_operator.health import Health, Watches, serve
from rerank_operator.metrics import Metrics
from rerank_operator.names import RERANKERS, WATCHED_KINDS
from rerank_operator.reconcile import Reconciler
from rerank_operator.resources import desired
from rerank_operator.settings import Settings
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue

log = logging.getLogger("rerank_operator")

# kopf lists for itself after we did and keeps quiet about what was deleted in between.
SECOND_LISTING_SECONDS = 30.0
RETRY_SECONDS = 2.0
# On a signal, passes under way may end; Kubernetes kills half a minute after it.
DRAIN_SECONDS = 10.0
STOP_SECONDS = 25
# After the last that matters, for closing connections.
END_SECONDS = 5
# What is said once for each of many objects, or at each try, is written this often.
REPEAT_SECONDS = 30.0


def main() -> None:
    """Run one command."""
    arguments = _parser().parse_args()
    if arguments.command == "crd":
        sys.stdout.write(_yaml(build_crd()))
        return
    settings = _settings(arguments)
    if arguments.command == "render":
        _render(arguments.file, settings)
        return
    _log_as_json(settings.log_level)
    try:
        asyncio.run(_run(settings))
    except LeaseLost as error:
        log.error("lease lost", extra={"error": str(error)})
        sys.exit(1)
    except Exception as error:
        log.error("operator stopped by a failure", exc_info=error)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rerank-operator", description="Rerankers on Kubernetes.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="watch RerankerServices and keep them right")
    scope = run.add_mutually_exclusive_group()
    scope.add_argument("--namespace", action="append", help="a namespace to watch; repeatable")
    scope.add_argument("--all-namespaces", action="store_true")
    commands.add_parser("crd", help="print the CustomResourceDefinition")
    render = commands.add_parser("render", help="print the children of RerankerServices in a file")
    render.add_argument("-f", "--file", type=Path, required=True)
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    try:
        settings = Settings()
    except ValidationError as error:
        prefix = Settings.model_config["env_prefix"]
        faults = [
            f"{prefix}{str(fault['loc'][0]).upper()}: {fault['msg']}" for fault in error.errors()
        ]
        sys.exit("\n".join(faults))
    if arguments.command == "run" and (arguments.namespace or arguments.all_namespaces):
        return settings.model_copy(update={"namespaces": tuple(arguments.namespace or ())})
    return settings


def _render(path: Path, settings: Settings) -> None:
    for body in yaml.safe_load_all(path.read_text()):
        if not isinstance(body, dict) or body.get("kind") != RERANKERS.name:
            continue
        try:
            children = desired(parse(body), settings)
        except InvalidSpec as error:
            sys.exit(f"{path}: {error}")
        for child in children:
            sys.stdout.write("---\n" + _yaml(child))


def _yaml(manifest: dict[str, object]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=100)


async def _run(settings: Settings) -> None:
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
    async with connect(identity, fence, metrics) as cluster:
        reconciler = Reconciler(store, cluster, settings, lambda: datetime.now(UTC))
        queue = WorkQueue(_guarded(reconciler), metrics=metrics)
        election = _election(cluster, settings, identity, fence)
        lease_silent_seconds = election.silent_seconds if election else lambda: 0.0
        metrics.leader.labels(settings.lease).set_function(fence.is_open)
        health = Health(queue, watches, lease_silent_seconds, cluster.answers)
        memo = handlers.Memo(store, queue, watches, metrics)
        log.info(
            "starting",
            extra={
                "version": __version__,
                "namespaces": settings.namespaces,
                "identity": identity,
            },
        )
        async with serve(health, metrics, settings.health_port, settings.metrics_port):
            tasks = [
                asyncio.create_task(stop.wait(), name="stop"),
                asyncio.create_task(_lead(election, queue, settings.workers), name="lead"),
                asyncio.create_task(_watch(cluster, memo, health, settings, stop), name="watch"),
            ]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # Whatever hangs from here on does not outlive this: the default action is to end.
            signal.alarm(STOP_SECONDS)
            drained = await queue.drain(DRAIN_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            # A write that was cut off may still take effect: then the Lease runs out by itself.
            if election and drained:
                await election.release()
            signal.alarm(END_SECONDS)
            for task in done:
                task.result()


def _election(cluster: Cluster, settings: Settings, identity: str, fence: Fence) -> Election | None:
    namespace, _, name = settings.lease.partition("/")
    return Election(cluster, namespace, name, identity, fence) if name else None


async def _lead(election: Election | None, queue: WorkQueue[Key], workers: int) -> None:
    """Work on the queue, for as long as no other operator does.

    Raises:
        LeaseLost: another operator does.
    """
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
        working.cancel()
        renewing.cancel()
        await asyncio.gather(working, renewing, return_exceptions=True)


async def _watch(
    cluster: Cluster, memo: handlers.Memo, health: Health, settings: Settings, stop: asyncio.Event
) -> None:
    """List and watch for ever, also on an operator that stands by."""
    await _list_all(cluster, memo.store, memo.queue, settings.namespaces)
    health.synced = True
    log.info("watching", extra={"services": len(memo.store.keys())})
    async with asyncio.TaskGroup() as group:
        group.create_task(_resync(cluster, memo, settings), name="resync")
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
    cluster: Cluster, store: Store, queue: WorkQueue[Key], namespaces: Sequence[str]
) -> None:
    """List every kind, for as long as it takes, then ask for a pass of each service."""
    changed: set[Key] = set()
    for kind in WATCHED_KINDS:
        while True:
            try:
                changed |= store.replace(kind, *await cluster.list(kind, namespaces))
                break
            except OperatorError as error:
                # NotFound: the CustomResourceDefinition is yet to be installed.
                log.warning("cannot list", extra={"kind": kind.name, "error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
    for key in store.keys() | changed:
        queue.add(key)


async def _resync(cluster: Cluster, memo: handlers.Memo, settings: Settings) -> None:
    seconds = min(SECOND_LISTING_SECONDS, settings.resync_seconds)
    while True:
        await asyncio.sleep(seconds)
        await _list_all(cluster, memo.store, memo.queue, settings.namespaces)
        log.debug("listed again", extra={"services": len(memo.store.keys())})
        seconds = settings.resync_seconds * random.uniform(0.9, 1.1)


class Seldom(logging.Filter):
    """Lets what an absent API server makes everybody say through now and then, as a warning.

    kopf logs each retry of each watch as an error, and the passes of a thousand objects fail alike.
    """

    _MESSAGES = (
        "failed; will retry: ",
        "API server unavailable, will retry",
        "cannot list",
        "cannot take the lease",
        "not well",
    )

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        kind = next((text for text in self._MESSAGES if text in message), None)
        if kind is None:
            return True
        if record.created < self._next.get(kind, 0):
            return False
        self._next[kind] = record.created + REPEAT_SECONDS
        record.levelno = min(record.levelno, logging.WARNING)
        record.levelname = logging.getLevelName(record.levelno)
        return True


class _JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and whatever came in `extra`."""

    _OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if not record.name.startswith("kopf"):  # kopf hangs whole objects on its records
            entry |= {key: value for key, value in vars(record).items() if key not in self._OWN}
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _log_as_json(level: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonFormatter())
    handler.addFilter(Seldom())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rerank_operator").setLevel(level)


if __name__ == "__main__":
    main()
