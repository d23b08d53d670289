"""What the models of the spec are made of: rules, checked text, quantities, references."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

Manifest = dict[str, Any]

# Upper bounds in these models keep CEL affordable: the API server estimates a rule by its longest
# input.

# The API server's own syntax of a quantity, without a sign and below 2^63. Of larger values it
# keeps other ones (1 of 1000000E), and a large exponent occupies it for longer than a call lasts.
_EXPONENT = "[eE][+-]?[0-9]"
_WHOLE_DIGITS = {
    "[num]?": "[0-9]{1,18}",
    "(k|Ki)": "[0-9]{1,15}",
    "Mi?": "[0-9]{1,12}",
    f"(Gi?|{_EXPONENT})": "[0-9]{1,9}",
    "Ti?": "[0-9]{1,6}",
    "Pi?": "[0-9]{1,3}",
    "E": "[0-9]",
    "Ei": "[0-7]",
}
QUANTITY = (
    "^("
    + "".join(rf"{whole}(\.[0-9]*)?{suffix}|" for suffix, whole in _WHOLE_DIGITS.items())
    + rf"\.[0-9]+([numkMGTPE]|[KMGTPE]i|{_EXPONENT})?)$"
)

RULES = "x-kubernetes-validations"
PRESERVED = {"x-kubernetes-preserve-unknown-fields": True}

_DNS_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_NAME = rf"{_DNS_LABEL}(\.{_DNS_LABEL})*"


def rule(cel: str, message: str, message_expression: str | None = None) -> dict[str, str]:
    """Return one entry of `x-kubernetes-validations`.

    `message_expression` is CEL and may quote values; `message` is what is said if it fails, and
    what the reference shows.
    """
    entry = {"rule": cel, "message": message}
    return entry | ({"messageExpression": message_expression} if message_expression else {})


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """Return the schema keyword that holds `entries`, for the `model_config` of a type."""
    return {RULES: list(entries)}


def cel_list(texts: Sequence[str]) -> str:
    """Return a list of strings as CEL writes it."""
    return "[" + ", ".join(f"'{text}'" for text in texts) + "]"


def merged_by(*keys: str) -> dict[str, Any]:
    """Return the schema keywords of a list whose items are told apart by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


class Rules:
    """Rules of one field. `json_schema_extra` would put them in place of those of `Matches`."""

    def __init__(self, *entries: dict[str, str]) -> None:
        self._entries = entries

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Manifest:
        node = handler(schema)
        return node | rules(*node.get(RULES, []), *self._entries)


def at_least(field: str, least: float) -> Rules:
    """Return the check of a number's lower bound, beside the schema's own `minimum`.

    Where the value is written as an integer, the API server cuts that bound to one: it takes 0 for
    no less than 0.05.
    """
    message = f"{field} is below {least:g}: write that, or more"
    return Rules(rule(f"self >= {float(least)}", message))


@dataclass(frozen=True)
class Matches:
    """A string has to match `pattern`, or else the refusal ends in `remedy`.

    A rule in place of the schema's own `pattern`, whose refusal only quotes the expression.
    """

    field: str
    pattern: str
    remedy: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> Manifest:
        entry = rule(
            f"self.matches(r'{self.pattern}')",
            f"{self.field} is not valid: {self.remedy}",
            f'"{self.field} is \'" + self + "\': {self.remedy}"',
        )
        return Rules(entry).__get_pydantic_json_schema__(schema, handler)

    def _check(self, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(self.pattern, value):
            raise ValueError(f"{self.field} is {value!r}: {self.remedy}")
        return value


def dns_name(field: str) -> Matches:
    """Return the check of a name of most kinds of objects."""
    return Matches(
        field, f"^{_DNS_NAME}$", "write an object's name, of lower case letters, digits, '-', '.'"
    )


# For what the API server drops when it is empty: found unset again, it would look like drift. The
# schema gives such a field no default, so that a rule can tell whether it was written.
EmptyIsUnset = AfterValidator(lambda value: value or None)


class ApiModel(BaseModel):
    """camelCase on the wire, snake_case in code, frozen. Unknown keys are dropped, so an
    older operator survives objects written for a newer one."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    def manifest(self) -> Manifest:
        """Return what the user wrote, as it goes into a child.

        Without what is unset, and lists and maps that are empty.
        """
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


Quantity = Annotated[
    int | str,
    Field(
        description="As in pods: 500m, 2, 4Gi. Less than 8Ei.",
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "pattern": QUANTITY,
            "maxLength": 32,
        },
    ),
    PlainSerializer(str, when_used="json"),
]
Quantities = Annotated[dict[Annotated[str, Field(max_length=128)], Quantity], Field(max_length=16)]


class SecretKey(ApiModel):
    """One value in a Secret of the same namespace."""

    name: Annotated[
        str,
        Field(max_length=253, description="Name of the Secret, in the same namespace."),
        dns_name("name"),
    ]
    key: Annotated[
        str,
        Field(max_length=253, description="Which of its values."),
        Matches("key", r"^[-._a-zA-Z0-9]+$", "write letters, digits, '-', '_', '.'"),
    ] = "token"


class ObjectName(ApiModel):
    """An object of the same namespace."""

    name: Annotated[str, Field(max_length=253, description="Its name."), dns_name("name")]
