"""What the operator sets is what the server reads."""

from typing import Any, cast

import pytest

from builders import make_reranker
from rerank_operator.resources.deployment import build_deployment, environment
from rerank_operator.settings import Settings
from rerank_server.app import create_app
from rerank_server.settings import PREFIX, read_settings
from rerank_server.settings import Settings as ServerSettings

ALL_FIELDS = {
    "model": {
        "name": "org/model",
        "revision": "v1",
        "servedName": "served",
        "family": "qwen3-reranker",
    },
    "engine": {
        "dtype": "float32",
        "maxModelLen": 512,
        "tensorParallelSize": 2,
        "gpuMemoryUtilization": 0.5,
        "enforceEager": True,
        "instruction": "Find the answer",
    },
    "drainSeconds": 7,
}


def contract(**spec: object) -> dict[str, str]:
    values = environment(make_reranker(**spec))
    return {name: value for name, value in values.items() if name.startswith(PREFIX)}


def test_every_variable_is_a_setting_of_the_server() -> None:
    settings = {f"{PREFIX}{name.upper()}" for name in ServerSettings.model_fields}

    assert set(contract(**ALL_FIELDS)) <= settings


def test_server_reads_every_value_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in contract(**ALL_FIELDS).items():
        monkeypatch.setenv(name, value)

    read = read_settings([])

    unused = {"log_level", "quantization", "trust_remote_code", "engine_args"}
    assert read.model_dump(exclude=unused) == {
        "model": "org/model",
        "revision": "v1",
        "served_name": "served",
        "family": "qwen3-reranker",
        "dtype": "float32",
        "max_model_len": 512,
        "tensor_parallel_size": 2,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
        "instruction": "Find the answer",
        "host": "0.0.0.0",
        "port": 8080,
        "drain_seconds": 7,
    }


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
    app = create_app(cast(Any, None), cast(Any, None), "model")
    container = build_deployment(make_reranker(), Settings())["spec"]["template"]["spec"][
        "containers"
    ][0]

    asked = {
        container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }

    assert asked <= {getattr(route, "path", None) for route in app.routes}
