import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from rerank_operator.api import QUANTITY, RerankerServiceSpec
from rerank_operator.crd import build_crd, structural_schema
from rerank_operator.errors import SchemaError


def schema() -> dict[str, Any]:
    node: dict[str, Any] = build_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return node


def test_scale_paths_exist_in_the_schema() -> None:
    properties = schema()["properties"]

    assert properties["spec"]["properties"]["replicas"]["type"] == "integer"
    assert properties["status"]["properties"]["replicas"]["default"] == 0
    assert properties["status"]["properties"]["selector"]["type"] == "string"


def test_every_spec_field_is_in_the_schema_with_a_description() -> None:
    properties = schema()["properties"]["spec"]["properties"]

    assert len(properties) == len(RerankerServiceSpec.model_fields)
    assert all(node["description"] for node in properties.values())


def test_optional_object_is_filled_with_the_defaults_inside_it() -> None:
    engine = schema()["properties"]["spec"]["properties"]["engine"]

    assert engine["default"] == {}
    assert engine["properties"]["maxModelLen"]["default"] == 4096


def test_unset_is_an_absent_key_and_not_null() -> None:
    revision = schema()["properties"]["spec"]["properties"]["model"]["properties"]["revision"]

    assert revision["type"] == "string"
    assert "default" not in revision


@pytest.mark.parametrize(
    "text", ["0", "2", "500m", "1.5Gi", "5.", ".5", ".5Gi", "1e3", "1E-3", "1n", "9E", "7.9Ei"]
)
def test_quantity_has_the_forms_that_pods_take(text: str) -> None:
    assert re.search(QUANTITY, text)


@pytest.mark.parametrize("text", ["", ".", "-1", "1 Gi", "1K", "1ki", "1e", "1e1.5", "1GiB", "two"])
def test_quantity_has_no_other_form(text: str) -> None:
    assert not re.search(QUANTITY, text)


@pytest.mark.parametrize(
    "text", ["1e30", "1e-10", "1000000E", "8Ei", "10E", "1000P", "9223372036854775808"]
)
def test_quantity_that_the_api_server_would_change_is_refused(text: str) -> None:
    assert not re.search(QUANTITY, text)


class Unbounded(BaseModel):
    name: str


class Union(BaseModel):
    value: int | bool


class Constant(BaseModel):
    value: Literal["only"]


class Nested(BaseModel):
    items: Annotated[list[str], Field(max_length=3)]


@pytest.mark.parametrize("model", [Unbounded, Union, Constant, Nested])
def test_what_a_crd_cannot_hold_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(SchemaError, match=model.__name__):
        structural_schema(model)
