"""What the operator sets is what the server reads."""

from collections.abc import Iterator
from typing import Any, cast, get_args

import pytest

from builders import make_reranker
from fields import leaves, spec_schema, spec_with
from rerank_operator import names
from rerank_operator.api.engine import RESERVED_ARGUMENTS
from rerank_operator.api.model import Family
from rerank_operator.api.variables import RESERVED_VARIABLES
from rerank_operator.observed import Observed
from rerank_operator.resources.deployment import build_deployment
from rerank_operator.resources.environment import environment
from rerank_operator.settings import Settings
from rerank_server import download, settings
from rerank_server.app import create_app
from rerank_server.families import FAMILIES
from rerank_server.metrics import Metrics
from rerank_server.settings import PREFIX, read_settings
from rerank_server.settings import Settings as ServerSettings


def contract(**spec: object) -> dict[str, str]:
    values = environment(make_reranker(**spec))
    return {name: value for name, value in values.items() if name.startswith(PREFIX)}


# As the server's settings have them.
READ = {
    "model": "org/model",
    "revision": "v1",
    "served_name": "served",
    "strict_model_name": True,
    "family": "qwen3-reranker",
    "trust_remote_code": True,
    "dtype": "float32",
    "quantization": "awq",
    "max_model_len": 512,
    "tensor_parallel_size": 2,
    "engines_per_gpu": 3,
    "gpu_memory_utilization": 0.5,
    "enforce_eager": True,
    "instruction": "Find the answer",
    "score_check": "enforce",
    "engine_args": {"max_num_seqs": 8, "enable_prefix_caching": False},
    "max_documents": 10,
    "max_document_chars": 11,
    "max_query_chars": 12,
    "max_body_bytes": 2048,
    "max_queued_pairs": 14,
    "requests_per_minute_per_client": 15,
    "trusted_proxies": ["10.0.0.0/8", "fd00::/8"],
    "blocked_patterns": ["(?i)secret, or", r"\$\d+$"],
    "truncate": False,
    "ui": True,
    "drain_seconds": 7,
    "host": "0.0.0.0",
    "port": 8080,
}
ALL_FIELDS = {
    "model": {
        "name": "org/model",
        "revision": "v1",
        "servedName": "served",
        "strictName": True,
        "family": "qwen3-reranker",
        "trustRemoteCode": True,
    },
    "engine": {
        "dtype": "float32",
        "quantization": "awq",
        "maxModelLen": 512,
        "tensorParallelSize": 2,
        "enginesPerGpu": 3,
        "gpuMemoryUtilization": 0.5,
        "enforceEager": True,
        "instruction": "Find the answer",
        "scoreCheck": "enforce",
        "extraArgs": {"max_num_seqs": 8, "enable_prefix_caching": False},
    },
    "limits": {
        "maxDocuments": 10,
        "maxDocumentChars": 11,
        "maxQueryChars": 12,
        "maxBodyBytes": 2048,
        "maxQueuedPairs": 14,
        "requestsPerMinutePerClient": 15,
        "trustedProxies": ["10.1.2.3/8", "fd00::/8"],
        "blockedPatterns": ["(?i)secret, or", r"\$\d+$"],
        "truncate": False,
    },
    "ui": {"enabled": True},
    "drainSeconds": 7,
}
OURS = [name for name in RESERVED_VARIABLES if name.startswith(PREFIX)]


@pytest.mark.parametrize("name", OURS)
def test_variable_is_a_setting_of_the_server(name: str) -> None:
    assert name.removeprefix(PREFIX).lower() in ServerSettings.model_fields


def test_every_variable_is_tried_below() -> None:
    tried = {f"{PREFIX}{name.upper()}" for name in READ}

    assert tried | {"RERANK_API_TOKEN"} == set(OURS)


@pytest.mark.parametrize("name", READ)
def test_server_reads_the_value_as_it_was_meant(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    variables = contract(**ALL_FIELDS)
    monkeypatch.setenv("RERANK_MODEL", variables["RERANK_MODEL"])
    monkeypatch.setenv(f"{PREFIX}{name.upper()}", variables[f"{PREFIX}{name.upper()}"])

    read = read_settings([]).model_dump(mode="json")

    assert read[name] == READ[name]


def choices() -> Iterator[tuple[str, Any]]:
    """Yield each field that has bounds or choices, with the values at its ends."""
    for path, node in leaves(spec_schema()):
        # What scales the pods says nothing to the server in them.
        if "[]" in path or path.startswith("autoscaling."):
            continue
        ends = [node[bound] for bound in ("minimum", "maximum") if bound in node]
        yield from ((path, value) for value in [*ends, *node.get("enum", [])])


@pytest.mark.parametrize(("path", "value"), list(choices()))
def test_server_takes_whatever_the_schema_lets_through(
    monkeypatch: pytest.MonkeyPatch, path: str, value: Any
) -> None:
    for name, text in contract(**spec_with(path, value)).items():
        monkeypatch.setenv(name, text)

    read_settings([])


@pytest.mark.parametrize(
    "name", [names.QUEUE_DEPTH_METRIC, names.QUEUE_WAIT_METRIC, names.UTILIZATION_METRIC]
)
def test_autoscalers_read_a_gauge_of_the_server_that_has_no_labels(name: str) -> None:
    # KEDA takes the first series that it finds, and adds nothing up.
    assert f"\n{name} 0.0\n" in Metrics().text().decode()


def test_families_are_those_of_the_server() -> None:
    assert set(get_args(Family)) == {"auto", *FAMILIES}


def test_engine_arguments_that_the_server_refuses_are_refused_by_the_schema() -> None:
    assert set(vars(settings)["RESERVED"]) <= set(RESERVED_ARGUMENTS)


def test_smallest_object_leaves_the_server_its_own_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in contract().items():
        monkeypatch.setenv(name, value)

    read = read_settings([])

    own = ServerSettings(model="Qwen/Qwen3-Reranker-0.6B", host="0.0.0.0")
    assert read == own


def test_probes_ask_for_paths_that_the_server_has() -> None:
    # The routes are there without a pipeline; only answering needs one.
    app = create_app(cast(Any, None), cast(Any, None), ServerSettings(model="m"))
    container = build_deployment(make_reranker(), Settings(), Observed())["spec"]["template"][
        "spec"
    ]["containers"][0]

    asked = {
        container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert asked <= {getattr(route, "path", None) for route in app.routes}


def test_download_answers_where_the_operator_asks() -> None:
    assert names.PROGRESS_PATH == download.PROGRESS_PATH
