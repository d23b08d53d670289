import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from rerank_operator.api.schema import QUANTITY, Matches, Rules, rule, rules
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


def test_every_field_at_any_depth_has_a_description() -> None:
    bare = [path for path, node in fields(schema(), "") if not node.get("description")]

    assert bare == []


def fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, child in node.get("properties", {}).items():
        # Of all kinds alike, and described by kubectl itself.
        if path or name != "metadata":
            yield f"{path}.{name}", child
            yield from fields(child, f"{path}.{name}")
            yield from fields(child.get("items", {}), f"{path}.{name}[]")


def test_every_rule_says_what_to_do() -> None:
    messages = [rule["message"] for rule in all_rules(schema())]

    assert len(messages) > 40
    assert [message for message in messages if ": " not in message] == []


def all_rules(node: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from node.get("x-kubernetes-validations", [])
    for child in node.get("properties", {}).values():
        yield from all_rules(child)
    for key in node.keys() & {"items", "additionalProperties"}:
        yield from all_rules(node[key])


def test_optional_object_is_filled_with_the_defaults_inside_it() -> None:
    engine = schema()["properties"]["spec"]["properties"]["engine"]

    assert engine["default"] == {}
    assert engine["properties"]["maxModelLen"]["default"] == 4096


def test_unset_is_an_absent_key_and_not_null() -> None:
    spec = schema()["properties"]["spec"]["properties"]

    assert spec["model"]["properties"]["revision"]["type"] == "string"
    assert "default" not in spec["model"]["properties"]["revision"]
    assert "default" not in spec["auth"]["properties"]["tokenSecretRef"]


def test_rules_of_a_type_and_of_its_place_both_hold() -> None:
    class Inner(BaseModel):
        model_config = ConfigDict(json_schema_extra=rules(rule("a", "A")))

        name: Annotated[str, Field(max_length=1)]

    class Outer(BaseModel):
        inner: Annotated[Inner, Field(json_schema_extra=rules(rule("b", "B")))]

    node = structural_schema(Outer)["properties"]["inner"]

    assert [entry["rule"] for entry in node["x-kubernetes-validations"]] == ["a", "b"]


def test_rules_of_one_field_all_hold() -> None:
    class Model(BaseModel):
        value: Annotated[
            str, Field(max_length=3), Rules(rule("a", "A"), rule("b", "B")), Matches("c", "C", "D")
        ]

    node = structural_schema(Model)["properties"]["value"]

    assert [entry["message"] for entry in node["x-kubernetes-validations"]] == [
        "A",
        "B",
        "c is not valid: D",
    ]


def test_single_choice_is_a_list_of_one() -> None:
    class Single(BaseModel):
        value: Literal["only"]

    assert structural_schema(Single)["properties"]["value"]["enum"] == ["only"]


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


class Nested(BaseModel):
    items: Annotated[list[str], Field(max_length=3)]


@pytest.mark.parametrize("model", [Unbounded, Union, Nested])
def test_what_a_crd_cannot_hold_is_refused(model: type[BaseModel]) -> None:
    with pytest.raises(SchemaError, match=model.__name__):
        structural_schema(model)
