"""The OpenAPI description tells the truth, and its page shows it without the internet."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rerank_server.app import FAILURES
from rerank_server.gate import REFUSALS
from rerank_server.openapi import MESSAGES
from server_process import server_process

schemathesis = pytest.importorskip("schemathesis")
jsonschema_rs = pytest.importorskip("jsonschema_rs")

import hypothesis  # noqa: E402  schemathesis brings it
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.generation import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
RANKING = {"/v1/rerank", "/rerank", "/v2/rerank", "/score", "/v1/score"}
SERVICE = {"/v1/models", "/info", "/health", "/ready", "/metrics"}


@pytest.fixture(scope="module")
def url(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_process(tiny_model, tmp_path_factory.mktemp("server")) as server:
        yield str(server.client.base_url)


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def description(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def content(document: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        kind, name = part["$ref"].split("/")[-2:]
        part = document["components"][kind][name]
    [found] = part["content"].values()
    assert isinstance(found, dict)
    return found


def values(content: dict[str, Any]) -> dict[str, Any]:
    examples = content.get("examples", {"": {"value": content.get("example")}})
    return {name: example["value"] for name, example in examples.items()}


def validator(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for({"components": document["components"], **schema})


def test_every_route_is_described_with_examples(document: dict[str, Any]) -> None:
    operations = {
        path: operation for path, found in document["paths"].items() for operation in found.values()
    }

    assert operations.keys() == RANKING | SERVICE
    for operation in operations.values():
        for response in operation["responses"].values():
            assert None not in values(content(document, response)).values()
    for path in RANKING:
        assert len(values(content(document, operations[path]["requestBody"]))) >= 2


def test_every_failure_is_described_by_its_kind(document: dict[str, Any]) -> None:
    responses = document["paths"]["/rerank"]["post"]["responses"]

    for status, kind in [*FAILURES.values(), *REFUSALS]:
        example = values(content(document, responses[str(status)]))[kind]
        assert example["error_type"] == kind
        assert kind in MESSAGES
        assert example["error"] == example["message"] == example["detail"]


@pytest.mark.parametrize("path", sorted(RANKING))
def test_examples_are_what_the_schemas_say(path: str, document: dict[str, Any]) -> None:
    operation = document["paths"][path]["post"]
    parts = [operation["requestBody"], *operation["responses"].values()]

    for found in [content(document, part) for part in parts]:
        valid = validator(document, found["schema"])
        for value in values(found).values():
            valid.validate(value)


@pytest.mark.parametrize("path", sorted(RANKING))
def test_example_is_answered_as_the_example_says(
    path: str, url: str, document: dict[str, Any]
) -> None:
    operation = document["paths"][path]["post"]
    bodies = values(content(document, operation["requestBody"]))
    answers = values(content(document, operation["responses"]["200"]))

    for name, body in bodies.items():
        response = httpx.post(url + path, json=body)

        assert response.status_code == 200
        assert shape(response.json()) == shape(answers[name])


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)


def test_page_needs_nothing_from_elsewhere(url: str) -> None:
    page = httpx.get(f"{url}/docs")

    assert page.status_code == 200
    assert "https://" not in page.text and "http://" not in page.text
    linked = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(linked) >= 2
    for target in linked:
        assert httpx.get(url + target).status_code == 200


@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
@pytest.mark.parametrize("path", sorted(RANKING))
def test_whatever_is_sent_is_answered_as_described(path: str, mode: str, description: Any) -> None:
    # Negative: against the schema in one place or another.
    cases = description[path]["POST"].as_strategy(generation_mode=GenerationMode[mode])

    @hypothesis.given(case=cases)
    @hypothesis.settings(max_examples=50, derandomize=True, deadline=None, database=None)
    def check(case: Any) -> None:
        # A deadline that has passed is the one 5xx that callers make.
        case.headers = {}
        case.call_and_validate(checks=CHECKS)

    check()


@pytest.mark.parametrize("path", sorted(SERVICE))
def test_service_answers_as_described(path: str, description: Any) -> None:
    description[path]["GET"].Case().call_and_validate(checks=CHECKS)
