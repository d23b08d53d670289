"""RerankerService v1alpha1: what a user writes, and the status the operator answers with."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from rerank_operator.errors import InvalidSpec

Manifest = dict[str, Any]

# Upper bounds below keep CEL affordable: the API server estimates a rule by its longest input.

MODEL_NAME = (
    r"^([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}|(/[A-Za-z0-9._-]+)+)$"
)
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


def rule(cel: str, message: str, message_expression: str | None = None) -> dict[str, str]:
    """Return one entry of `x-kubernetes-validations`.

    `message_expression` is CEL and may quote values; `message` is what is said if it fails.
    """
    entry = {"rule": cel, "message": message}
    return entry | ({"messageExpression": message_expression} if message_expression else {})


def rules(*entries: dict[str, str]) -> dict[str, Any]:
    """Return the schema keyword that holds `entries`."""
    return {"x-kubernetes-validations": list(entries)}


_MODEL_NAME_REMEDY = (
    "write a hub repository as org/name, or an absolute directory in the image "
    "such as /models/tiny-reranker, without '..'"
)
_MODEL_NAME_RULE = rule(
    f"self.matches(r'{MODEL_NAME}') && !self.contains('..')",
    f"model.name is not a model: {_MODEL_NAME_REMEDY}",
    f'"model.name is \'" + self + "\': {_MODEL_NAME_REMEDY.replace(chr(39), "`")}"',
)

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
]
Quantities = Annotated[dict[Annotated[str, Field(max_length=128)], Quantity], Field(max_length=16)]


class ApiModel(BaseModel):
    """camelCase on the wire, snake_case in code, frozen. Unknown keys are dropped, so an
    older operator survives objects written for a newer one."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class ModelSource(ApiModel):
    """Which model to serve."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            description="Hub repository (org/name), or an absolute directory in the image.",
            json_schema_extra=rules(_MODEL_NAME_RULE),
        ),
    ]
    revision: Annotated[
        str | None,
        Field(
            max_length=128,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            description="Branch, tag or commit of the repository. Unset: its default branch.",
        ),
    ] = None
    served_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=256,
            description="Model name in answers. Unset: the last part of `name`.",
        ),
    ] = None
    family: Annotated[
        Literal["auto", "qwen3-reranker"],
        Field(description="Kind of reranker. auto: told from the model's own configuration."),
    ] = "auto"


class Engine(ApiModel):
    """How vLLM runs the model."""

    dtype: Annotated[
        Literal["auto", "half", "bfloat16", "float32"],
        Field(description="Precision of weights and activations; half is float16."),
    ] = "auto"
    max_model_len: Annotated[
        int,
        Field(
            ge=128,
            le=1048576,
            description="Most tokens of one query-document pair; longer documents are cut.",
        ),
    ] = 4096
    tensor_parallel_size: Annotated[
        int, Field(ge=1, le=64, description="Accelerators that share one copy of the model.")
    ] = 1
    gpu_memory_utilization: Annotated[
        float, Field(ge=0.05, le=1, description="Share of the accelerator's memory vLLM takes.")
    ] = 0.9
    enforce_eager: Annotated[
        bool | None,
        Field(
            description="Skip compilation: starts sooner, answers slower. "
            "Unset: true on the CPU, false on an accelerator."
        ),
    ] = None
    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="Default task instruction of instructed models. Unset: the model's own.",
        ),
    ] = None


class Accelerator(ApiModel):
    """What each pod asks of the node."""

    resource: Annotated[
        str,
        Field(
            min_length=1,
            max_length=128,
            pattern=r"^(none|[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)$",
            description="Extended resource to request, or none to run vLLM on the CPU.",
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


class RerankerServiceSpec(ApiModel):
    """What the user asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            # `format` rather than `string() +`: of the length of such a sum nothing is known to
            # the API server, so it estimates a cost above its budget.
            rule(
                "!has(self.accelerator.count) || self.accelerator.resource == 'none' || "
                "self.accelerator.count >= self.engine.tensorParallelSize",
                "accelerator.count is below engine.tensorParallelSize",
                "'accelerator.count is %d but engine.tensorParallelSize is %d: "
                "raise count to that, or leave it out'"
                ".format([self.accelerator.count, self.engine.tensorParallelSize])",
            ),
            rule(
                "self.accelerator.resource != 'none' || !has(self.accelerator.count)",
                "accelerator.count is set but accelerator.resource is none",
                "'accelerator.count is %d but accelerator.resource is none: "
                "leave count out, or name a resource'.format([self.accelerator.count])",
            ),
            rule(
                "self.accelerator.resource != 'none' || self.engine.tensorParallelSize == 1",
                "engine.tensorParallelSize must be 1 without an accelerator",
                "'engine.tensorParallelSize is %d but accelerator.resource is none: "
                "set it to 1, or name a resource'.format([self.engine.tensorParallelSize])",
            ),
            rule(
                "!(self.accelerator.resource in self.resources.requests) && "
                "!(self.accelerator.resource in self.resources.limits)",
                "resources must not hold the accelerator",
                "'resources holds ' + self.accelerator.resource + "
                "': ask for it with accelerator.count instead'",
            ),
        )
    )

    model: Annotated[ModelSource, Field(description="Which model to serve.")]
    engine: Annotated[Engine, Field(description="How vLLM runs it.")] = Field(
        default_factory=Engine
    )
    accelerator: Annotated[Accelerator, Field(description="What each pod asks of the node.")] = (
        Field(default_factory=Accelerator)
    )
    image: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=512,
            pattern=r"^[^\s]+$",
            description="Server image. Unset: the operator's, for GPU or CPU.",
        ),
    ] = None
    resources: Annotated[Resources, Field(description="CPU and memory of a pod.")] = Field(
        default_factory=Resources
    )
    replicas: Annotated[int, Field(ge=0, le=1000, description="Pods to run.")] = 1
    drain_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="Time a pod that is going away has to finish requests it accepted.",
        ),
    ] = 60


class Condition(ApiModel):
    """One entry of `status.conditions`, in the form `kubectl wait` reads."""

    type: Annotated[str, Field(max_length=64)]
    status: Literal["True", "False", "Unknown"]
    reason: Annotated[str, Field(max_length=64)]
    message: Annotated[str, Field(max_length=2048)]
    observed_generation: int
    last_transition_time: datetime


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
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            description="Ready sums up the rest.",
            json_schema_extra={
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        ),
    ] = Field(default_factory=list)


class RerankerServiceDocument(ApiModel):
    """The object as a whole, for its schema."""

    spec: RerankerServiceSpec
    status: RerankerServiceStatus | None = None


class RerankerService(ApiModel):
    """One object from the API server, reduced to what the operator uses."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: RerankerServiceSpec


def parse(body: Mapping[str, Any]) -> RerankerService:
    """Read an object as the API server, or a user's file, holds it.

    A file has no UID and generation; they read as empty and 0.

    Raises:
        InvalidSpec: naming each wrong field. The schema refuses such an object, so this one was
            stored under another version of the CRD.
    """
    metadata = body.get("metadata", {})
    try:
        return RerankerService(
            name=metadata.get("name", ""),
            namespace=metadata.get("namespace", "default"),
            uid=metadata.get("uid", ""),
            generation=metadata.get("generation", 0),
            spec=RerankerServiceSpec.model_validate(body.get("spec", {})),
        )
    except ValidationError as error:
        faults = [
            f"spec.{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise InvalidSpec("; ".join(faults)) from error
