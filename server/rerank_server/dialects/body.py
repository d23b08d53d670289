"""What request bodies of every dialect have in common."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from pydantic import AliasChoices, BaseModel, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranking, Scored

# A parser holds the interpreter for as long as it works: 16 MiB of text take it 60 ms at most,
# 16 MiB of `[],` over a second. Bodies larger than the first number hold at most so many values.
COUNTED_FROM_BYTES = 256 * 1024
MAX_VALUES = 100_000
PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class About:
    """What an answer says of itself."""

    request_id: str
    model: str
    # Seconds since 1970.
    created: int


class Body(BaseModel):
    """A request body, read tolerantly: unknown fields are ignored, null means not given.

    The description of a field completes the sentence "give ...", for the caller who did not.
    """

    # Fields that only this form has, among those that share its path.
    marks: ClassVar[frozenset[str]] = frozenset()

    # The model asked for. There is one, and any name is an alias of it.
    model: str | None = None

    def rankings(self) -> list[Ranking]:
        """Return what is to be scored, one entry per query."""
        raise NotImplementedError

    def answer(self, scored: Sequence[Scored], about: About) -> Any:
        """Return the body of the answer; `scored` has one entry per ranking, in their order."""
        raise NotImplementedError

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, body: Any) -> Any:
        return {field: value for field, value in body.items() if value is not None}


B = TypeVar("B", bound=Body)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a request body, whatever its Content-Type says.

    Raises:
        BadRequest: it is no JSON object, or holds far more values than any request has.
    """
    if len(body) > COUNTED_FROM_BYTES and _too_many_values(body):
        raise BadRequest(
            f"the body holds more than {MAX_VALUES:,} values: send fewer documents at a time, "
            "as texts"
        )
    try:
        found = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        # The parser's words name a place and none of the text: a lone surrogate, say.
        raise BadRequest(f"the body is not a JSON object ({error}): send one, in UTF-8") from error
    if not isinstance(found, dict):
        raise BadRequest("the body is not a JSON object: send one, in UTF-8")
    return found


def validate(kind: type[B], found: dict[str, Any]) -> B:
    """Read a JSON object as a body of this kind.

    Raises:
        BadRequest: it is none; the message names field, value and remedy.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise BadRequest(_sentence(kind, error)) from error


def _too_many_values(body: bytes) -> bool:
    # Piece by piece, with numpy, which leaves the interpreter free meanwhile.
    count, within, start = 0, False, 0
    while start < len(body) and count <= MAX_VALUES:
        piece = body[start : start + PIECE_BYTES]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = body[start : start + PIECE_BYTES + 1]
        start += len(piece)
        # Without escapes, each quote begins or ends a text.
        plain = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        signs = np.frombuffer(plain, np.uint8)
        inside = np.logical_xor.accumulate(signs == ord('"')) ^ within
        begins = (signs == ord(",")) | (signs == ord("[")) | (signs == ord("{"))
        count += int(np.count_nonzero(begins & ~inside))
        within = bool(inside[-1]) if len(inside) else within
    return count > MAX_VALUES


def _sentence(kind: type[Body], error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        # Of the body as a whole: a rule about several fields, in its own words.
        return str(fault["ctx"]["error"])
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
            return json.dumps(value)[:100]
