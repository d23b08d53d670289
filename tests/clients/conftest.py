"""A server for the libraries of others, which have an environment of their own."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from server_process import ROOT, ServerProcess, server_process

# Both would ask the internet before they do anything else.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

# requirements/clients.txt is installed nowhere else.
collect_ignore_glob = [] if importlib.util.find_spec("litellm") else ["test_*.py"]


@pytest.fixture(scope="session")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    output = tmp_path_factory.mktemp("server")
    with server_process(tiny_model, output, python=ROOT / ".venv/bin/python") as server:
        yield server


@pytest.fixture
def url(server: ServerProcess) -> str:
    """The bare address, without a slash at its end."""
    return f"http://127.0.0.1:{server.port}"
