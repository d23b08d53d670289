"""`rerank-operator run|crd|render`: parse arguments, set up logging, start."""

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import kopf
import yaml
from pydantic import ValidationError

from rerank_operator import __version__, handlers
from rerank_operator.api import parse
from rerank_operator.cluster import Cluster, connect
from rerank_operator.crd import build_crd, unknown_fields
from rerank_operator.errors import InvalidSpec, NotFound, OperatorError, Refused
from rerank_operator.names import OPTIONAL_KINDS, RERANKERS, WATCHED_KINDS
from rerank_operator.reconcile import Reconciler
from rerank_operator.resources import desired
from rerank_operator.settings import Settings
from rerank_operator.store import Key, Store
from rerank_operator.workqueue import WorkQueue

log = logging.getLogger("rerank_operator")

# kopf lists for itself after we did and keeps quiet about what was deleted in between.
SECOND_LISTING_SECONDS = 30.0
RETRY_SECONDS = 2.0


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
    except asyncio.CancelledError:
        return
    except BaseExceptionGroup as group:
        for error in group.exceptions:
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
    render.add_argument("-f", "--file", type=Path, required=True, help="a file; - reads stdin")
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
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        documents = list(yaml.safe_load_all(text))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        sys.exit(f"{path} cannot be read: {error}")
    bodies = [
        document
        for document in documents
        if isinstance(document, dict) and document.get("kind") == RERANKERS.name
    ]
    if not bodies:
        sys.exit(f"{path} holds no {RERANKERS.name}: name a file that does")
    for body in bodies:
        if not isinstance(body.get("metadata"), dict) or not body["metadata"].get("name"):
            sys.exit(f"{path}: metadata.name is not set: give the {RERANKERS.name} a name")
        if unknown := unknown_fields(body):
            sys.exit(f"{path}: unknown field {', '.join(unknown)}: correct it, or leave it out")
        try:
            children = desired(parse(body), settings)
        except InvalidSpec as error:
            sys.exit(f"{path}: {error}")
        for child in children:
            sys.stdout.write("---\n" + _yaml(child))


def _yaml(manifest: dict[str, object]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=100)


async def _run(settings: Settings) -> None:
    """Run until SIGTERM, or until a part of the operator fails."""
    # For peering, which is off. Without it kopf looks its user up in passwd, and has none there.
    os.environ.setdefault("POD_ID", "rerank-operator")
    # As process 1 of a container, a program without a handler never gets the signal.
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with connect() as cluster, asyncio.TaskGroup() as group:
        store = Store()
        queue = WorkQueue(_guarded(Reconciler(store, cluster, settings, lambda: datetime.now(UTC))))
        helpers = [group.create_task(queue.run(settings.workers), name="queue")]
        log.info("starting", extra={"version": __version__, "namespaces": settings.namespaces})
        await _list_all(cluster, store, queue, settings.namespaces)
        helpers.append(group.create_task(_resync(cluster, store, queue, settings), name="resync"))
        log.info("watching", extra={"services": len(store.keys())})
        await kopf.operator(
            settings=handlers.build_settings(),
            memo=handlers.Memo(store, queue),
            clusterwide=not settings.namespaces,
            namespaces=settings.namespaces,
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz"
            if settings.health_port
            else None,
        )
        for helper in helpers:
            helper.cancel()


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
    for kind in (*WATCHED_KINDS, *OPTIONAL_KINDS):
        while True:
            try:
                changed |= store.replace(kind, *await cluster.list(kind, namespaces))
                break
            except OperatorError as error:
                # Else NotFound means that our CustomResourceDefinition is yet to be installed.
                if kind in OPTIONAL_KINDS and isinstance(error, (NotFound, Refused)):
                    changed |= store.replace(kind, [], sys.maxsize)
                    break
                log.warning("cannot list", extra={"kind": kind.name, "error": str(error)})
                await asyncio.sleep(RETRY_SECONDS)
    for key in store.keys() | changed:
        queue.add(key)


async def _resync(
    cluster: Cluster, store: Store, queue: WorkQueue[Key], settings: Settings
) -> None:
    seconds = SECOND_LISTING_SECONDS
    while True:
        await asyncio.sleep(seconds)
        await _list_all(cluster, store, queue, settings.namespaces)
        seconds = settings.resync_seconds * random.uniform(0.9, 1.1)


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
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("rerank_operator").setLevel(level)


if __name__ == "__main__":
    main()
