"""One module per wire format: its bodies in, its bodies out; nothing else."""

import json
from typing import Any, TypeVar

from pydantic import AliasChoices, BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo

from rerank_server.errors import BadRequest


class Body(BaseModel):
    """A request body, read tolerantly: unknown fields are ignored, null means not given.

    The description of a field completes the sentence "give ...", for the caller who did not.
    """

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        if isinstance(body, dict):
            return {field: value for field, value in body.items() if value is not None}
        return body


B = TypeVar("B", bound=Body)


def parse(kind: type[B], body: bytes) -> B:
    """Read a request body, whatever its Content-Type says.

    Raises:
        BadRequest: it is no JSON object of this kind; the message names field, value, remedy.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise BadRequest(_sentence(kind, error)) from error


def _sentence(kind: type[Body], error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        # The parser's words name a place and none of the text: a lone surrogate, say.
        at = f" ({fault['ctx']['error']})" if fault["type"] == "json_invalid" else ""
        return f"the body is not a JSON object{at}: send one, in UTF-8"
    field, *path = map(str, fault["loc"])
    described = {
        name: info.description
        for attribute, info in kind.model_fields.items()
        for name in _names(attribute, info)
    }
    where = field + "".join(f"[{step}]" for step in path)
    remedy = f"give {described[field]}"
    if fault["type"] == "missing":
        return f"{where} is missing: {remedy}"
    return f"{where} is {_show(fault['input'])}: {remedy}"


def _names(attribute: str, field: FieldInfo) -> list[str]:
    match field.validation_alias:
        case AliasChoices(choices=choices):
            return [str(choice) for choice in choices]
        case str(alias):
            return [alias]
        case _:
            return [attribute]


def _show(value: object) -> str:
    # Only what cannot be a text of the caller's: those stay out of answers and logs.
    match value:
        case "":
            return "empty"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case dict():
            return "an object"
        case str():
            return json.dumps(value if len(value) <= 20 else value[:20] + "…", ensure_ascii=False)
        case _:
            return json.dumps(value)
