"""The bytes of a request -> a body of one of the dialects, and mistakes in it as sentences."""

import json
from typing import Any, TypeVar

import numpy as np
from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from rerank_server.dialects.body import Body
from rerank_server.errors import BadRequest

# A parser holds the interpreter for as long as it works: 16 MiB of text take it 60 ms at most,
# 16 MiB of `[],` over a second. Bodies larger than the first number hold at most so many values.
COUNTED_FROM_BYTES = 256 * 1024
MAX_VALUES = 100_000
PIECE_BYTES = 2**20

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SHOWN_CHARS = 100

B = TypeVar("B", bound=Body)


def read_object(body: bytes) -> dict[str, Any]:
    """Read a request body, whatever its Content-Type says, without what is null in it.

    null means not given. Of a key that comes twice the last value counts.

    Raises:
        BadRequest: it is no JSON object, or holds far more values than any request has.
    """
    if len(body) > COUNTED_FROM_BYTES and _too_many_values(body):
        raise BadRequest(
            f"the body holds more than {MAX_VALUES:,} values: send fewer documents at a time, "
            "as texts"
        )
    try:
        found = from_json(body.removeprefix(BYTE_ORDER_MARK), allow_inf_nan=False)
    except ValueError as error:
        # The parser's words name a place and none of the text: a lone surrogate, say.
        raise BadRequest(f"the body is not a JSON object ({error}): send one, in UTF-8") from error
    if not isinstance(found, dict):
        raise BadRequest("the body is not a JSON object: send one, in UTF-8")
    return {field: value for field, value in found.items() if value is not None}


def validate(kind: type[B], found: dict[str, Any]) -> B:
    """Read a JSON object as a body of this kind.

    Raises:
        BadRequest: it is none; the message names field, value and remedy.
    """
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise _refusal(kind, error) from error


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


def _refusal(kind: type[Body], error: ValidationError) -> BadRequest:
    fault = error.errors(include_url=False)[0]
    if not fault["loc"]:
        # Of the body as a whole: a rule about several fields, in its own words.
        return BadRequest(str(fault["ctx"]["error"]))
    # Steps that are no number tell which kind of value pydantic has taken it for.
    field, *path = fault["loc"]
    where = str(field) + "".join(f"[{step}]" for step in path if isinstance(step, int))
    described = {
        name: info.description
        for attribute, info in kind.model_fields.items()
        for name in _names(attribute, info)
    }
    remedy = f"give {described[str(field)]}"
    if fault["type"] == "missing":
        return BadRequest(f"{where} is missing: {remedy}")
    return BadRequest(
        f"{where} is {_show(fault['input'])}: {remedy}",
        # The value may be a text that was meant for another field.
        for_log=f"{where} is not what it takes: {remedy}",
    )


def _names(attribute: str, field: FieldInfo) -> list[str]:
    match field.validation_alias:
        case AliasChoices(choices=choices):
            return [str(choice) for choice in choices]
        case str(alias):
            return [alias]
        case _:
            return [attribute]


def _show(value: object) -> str:
    match value:
        case "":
            return "empty"
        case str() if value.isspace():
            return "blank"
        case []:
            return "an empty list"
        case list():
            return "a list"
        case dict():
            return "an object"
        case str() if len(value) > SHOWN_CHARS:
            return json.dumps(value[:SHOWN_CHARS] + "…", ensure_ascii=False)
        case str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return json.dumps(value)[:SHOWN_CHARS]
