"""`spec.accelerator` and `spec.resources`: what a pod asks of the node."""

from typing import Annotated

from pydantic import Field

from rerank_operator.api.schema import ApiModel, Matches, Quantities


class Accelerator(ApiModel):
    """The device of each pod."""

    resource: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            description="Extended resource to request, or none to run vLLM on the CPU.",
        ),
        Matches(
            "accelerator.resource",
            r"^(none|[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)$",
            "write an extended resource such as nvidia.com/gpu, or none for the CPU",
        ),
    ] = "nvidia.com/gpu"
    count: Annotated[
        int | None,
        Field(ge=1, le=64, description="How many, per pod. Unset: engine.tensorParallelSize."),
    ] = None


class Resources(ApiModel):
    """CPU and memory of the server container, as in any pod."""

    requests: Annotated[Quantities, Field(description="What the scheduler reserves.")] = Field(
        default_factory=dict
    )
    limits: Annotated[Quantities, Field(description="What the container may not exceed.")] = Field(
        default_factory=dict
    )
