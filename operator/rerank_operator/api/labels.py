"""Labels and annotations: their keys and values, and how they pick objects."""

from typing import Annotated, Literal

from pydantic import Field

from rerank_operator.api.schema import ApiModel, Matches, rule

RESERVED_LABELS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "pod-template-hash",
)

_LABEL_PART = "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"

MapKey = Annotated[str, Field(max_length=317)]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    Matches(
        "the label's value",
        f"^({_LABEL_PART})?$",
        "write letters, digits, '-', '_', '.', and begin and end with a letter or digit",
    ),
]


def reserved_keys(field: str, *keys: str) -> dict[str, str]:
    """Return the rule that keeps `keys`, and all of our own group, out of labels or annotations."""
    tests = [f"key == '{key}'" for key in keys] + ["key.startsWith('rerank.dev/')"]
    listed = "".join(f", and {key}" for key in keys)
    return rule(
        f"self.all(key, !({' || '.join(tests)}))",
        f"{field} holds a key that the operator sets: leave out all that begin with rerank.dev/"
        + listed,
    )


class Requirement(ApiModel):
    """One expression over a label."""

    key: Annotated[str, Field(min_length=1, max_length=317, description="The label.")]
    operator: Annotated[
        Literal["In", "NotIn", "Exists", "DoesNotExist"],
        Field(description="How its value relates to `values`."),
    ]
    values: Annotated[list[LabelValue], Field(max_length=16, description="For In and NotIn.")] = (
        Field(default_factory=list)
    )


class LabelSelector(ApiModel):
    """Picks objects by their labels; an empty one picks all."""

    match_labels: Annotated[
        dict[MapKey, LabelValue], Field(max_length=32, description="Labels with their values.")
    ] = Field(default_factory=dict)
    match_expressions: Annotated[
        list[Requirement], Field(max_length=8, description="Expressions that all have to hold.")
    ] = Field(default_factory=list)
