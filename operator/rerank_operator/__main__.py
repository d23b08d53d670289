"""`rerank-operator run|crd|render|doctor`: parse arguments, set up logging, start."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

import yaml
from pydantic import ValidationError

from rerank_operator import __version__
from rerank_operator.api import parse
from rerank_operator.cluster import connect
from rerank_operator.crd import build_crd, unknown_fields
from rerank_operator.doctor import examine
from rerank_operator.doctor.verdicts import Finding
from rerank_operator.errors import InvalidSpec, LeaseLost, Unavailable
from rerank_operator.logs import log_as_json
from rerank_operator.names import RERANKERS
from rerank_operator.process import run
from rerank_operator.resources import desired
from rerank_operator.settings import Settings

log = logging.getLogger("rerank_operator")


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
    if arguments.command == "doctor":
        sys.exit(asyncio.run(_doctor(settings)))
    log_as_json(settings.log_level)
    try:
        asyncio.run(run(settings))
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
    runs = commands.add_parser("run", help="watch RerankerServices and keep them right")
    doctor = commands.add_parser("doctor", help="tell what a cluster lacks, and what to do")
    for command in (runs, doctor):
        scope = command.add_mutually_exclusive_group()
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
    if arguments.command != "render" and (arguments.namespace or arguments.all_namespaces):
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


async def _doctor(settings: Settings) -> int:
    """Print one line for each check, and return the exit code: 1 when one has failed."""
    failed = False
    try:
        async with connect("doctor") as cluster:
            async for finding in examine(cluster, settings):
                failed |= finding.level == "fail"
                print(finding, flush=True)
    except Unavailable as error:
        print(Finding("fail", "API server", str(error)))
        failed = True
    return int(failed)


def _yaml(manifest: dict[str, object]) -> str:
    return yaml.safe_dump(manifest, sort_keys=False, width=100)


if __name__ == "__main__":
    main()
