"""`status`: what the operator found."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from rerank_operator.api.schema import ApiModel, merged_by


class Condition(ApiModel):
    """One entry of `status.conditions`, in the form `kubectl wait` reads."""

    type: Annotated[str, Field(max_length=64, description="What is told about.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="True is healthy.")]
    reason: Annotated[str, Field(max_length=64, description="Why, in one word for machines.")]
    message: Annotated[str, Field(max_length=2048, description="Why, for people.")]
    observed_generation: Annotated[
        int, Field(description="The generation of the object that this is about.")
    ]
    last_transition_time: Annotated[datetime, Field(description="When `status` last changed.")]


class ModelStatus(ApiModel):
    """The model that was downloaded last."""

    name: Annotated[str, Field(max_length=256, description="Its repository.")]
    revision: Annotated[str, Field(max_length=64, description="The commit.")]
    download: Annotated[
        str,
        Field(
            max_length=64,
            description="Tells the download from one of another model, revision, hub or volume.",
        ),
    ]


class RerankerServiceStatus(ApiModel):
    """What the operator found. `replicas` is always there: /scale has no answer without it."""

    observed_generation: Annotated[
        int | None, Field(description="The generation these facts are about.")
    ] = None
    replicas: Annotated[int, Field(description="Pods that exist.")] = 0
    ready_replicas: Annotated[int, Field(description="Pods that answer.")] = 0
    selector: Annotated[
        str, Field(max_length=512, description="Label selector of the pods, for autoscalers.")
    ] = ""
    url: Annotated[
        str, Field(max_length=512, description="Where to send requests, inside the cluster.")
    ] = ""
    model: Annotated[
        ModelStatus | None,
        Field(description="What is on the volume of `spec.cache`, and what pods are started with."),
    ] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Ready sums up the rest.",
            json_schema_extra=merged_by("type"),
        ),
    ] = Field(default_factory=list)
