"""RerankerService v1alpha1: what a user writes, and the status the operator answers with."""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from rerank_operator.api.access import Auth, Monitoring, NetworkPolicy, Ui
from rerank_operator.api.autoscaling import Autoscaling
from rerank_operator.api.cache import Cache
from rerank_operator.api.engine import Engine
from rerank_operator.api.hardware import Accelerator, Resources
from rerank_operator.api.limits import Limits
from rerank_operator.api.model import ModelSource
from rerank_operator.api.pods import PodTemplate
from rerank_operator.api.schema import ApiModel, Manifest, Matches, SecretKey, rule, rules
from rerank_operator.api.status import Condition, ModelStatus, RerankerServiceStatus
from rerank_operator.errors import InvalidSpec

__all__ = [
    "Autoscaling",
    "Condition",
    "Manifest",
    "ModelStatus",
    "RerankerService",
    "RerankerServiceDocument",
    "RerankerServiceSpec",
    "RerankerServiceStatus",
    "SecretKey",
    "SecretUse",
    "parse",
    "secrets_used",
]


class RerankerServiceSpec(ApiModel):
    """What the user asks for."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            # `format` rather than `string() +`: of the length of such a sum nothing is known to
            # the API server, so it estimates a cost above its budget.
            rule(
                "!has(self.accelerator.count) || self.accelerator.resource == 'none' || "
                "self.accelerator.count >= self.engine.tensorParallelSize",
                "accelerator.count is below engine.tensorParallelSize: raise it, or leave it out",
                "'accelerator.count is %d but engine.tensorParallelSize is %d: "
                "raise count to that, or leave it out'"
                ".format([self.accelerator.count, self.engine.tensorParallelSize])",
            ),
            rule(
                "self.accelerator.resource != 'none' || !has(self.accelerator.count)",
                "accelerator.count is set but accelerator.resource is none: leave count out",
                "'accelerator.count is %d but accelerator.resource is none: "
                "leave count out, or name a resource'.format([self.accelerator.count])",
            ),
            rule(
                "self.accelerator.resource != 'none' || self.engine.tensorParallelSize == 1",
                "engine.tensorParallelSize is above 1 without an accelerator: set it to 1",
                "'engine.tensorParallelSize is %d but accelerator.resource is none: "
                "set it to 1, or name a resource'.format([self.engine.tensorParallelSize])",
            ),
            rule(
                "self.engine.enginesPerGpu == 1 || self.engine.tensorParallelSize == 1",
                "engine.enginesPerGpu and engine.tensorParallelSize are both above 1: set one of "
                "them to 1",
                "'engine.enginesPerGpu is %d and engine.tensorParallelSize is %d: a model that "
                "takes several accelerators gives each enough to do, so set one of them to 1'"
                ".format([self.engine.enginesPerGpu, self.engine.tensorParallelSize])",
            ),
            rule(
                "!(has(self.resources.requests) && "
                "self.accelerator.resource in self.resources.requests) && "
                "!(has(self.resources.limits) && "
                "self.accelerator.resource in self.resources.limits)",
                "resources holds the accelerator: ask for it with accelerator.count instead",
                "'resources holds ' + self.accelerator.resource + "
                "': ask for it with accelerator.count instead'",
            ),
            rule(
                "self.limits.maxDocuments <= self.limits.maxQueuedPairs",
                "limits.maxDocuments is above limits.maxQueuedPairs: lower it, or raise the other",
                "'limits.maxDocuments is %d but limits.maxQueuedPairs is %d, so that a request of "
                "that many would never be let in: lower maxDocuments, or raise maxQueuedPairs'"
                ".format([self.limits.maxDocuments, self.limits.maxQueuedPairs])",
            ),
            rule(
                "!has(self.cache) || has(self.cache.existingClaim) || "
                "!self.model.name.startsWith('/')",
                "model.name is a directory, and cache has no existingClaim that could hold it: "
                "leave cache out, or name the claim",
                "'model.name is ' + self.model.name + ', a directory, and cache has no "
                "existingClaim that could hold it: leave cache out, or name the claim'",
            ),
        )
    )

    model: Annotated[ModelSource, Field(description="Which model to serve.")]
    engine: Annotated[Engine, Field(description="How vLLM runs it.")] = Field(
        default_factory=Engine
    )
    accelerator: Annotated[Accelerator, Field(description="The device of each pod.")] = Field(
        default_factory=Accelerator
    )
    image: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=512,
            description="Server image. Unset: the operator's, for GPU or CPU.",
        ),
        Matches("image", r"^[^\s]+$", "write an image without spaces, such as server:1.0"),
    ] = None
    resources: Annotated[Resources, Field(description="CPU and memory of a pod.")] = Field(
        default_factory=Resources
    )
    cache: Annotated[
        Cache | None,
        Field(
            description="A volume that keeps the model. Unset: each pod downloads it anew when it "
            "starts."
        ),
    ] = None
    replicas: Annotated[
        int,
        Field(ge=0, le=1000, description="Pods to run. With autoscaling, the autoscaler sets it."),
    ] = 1
    autoscaling: Annotated[
        Autoscaling | None,
        Field(
            description="How many pods there are, by the work that waits. Unset: spec.replicas of "
            "them; where it was set before, as many as there are then."
        ),
    ] = None
    limits: Annotated[
        Limits,
        Field(
            description="What one request may bring (over it: 413, naming the limit), and how much "
            "may come in."
        ),
    ] = Field(default_factory=Limits)
    rollout: Annotated[
        Literal["Auto", "Surge", "InPlace"],
        Field(
            description="How new pods replace old ones after a change. Surge: the new one starts "
            "beside the old one, which serves until then; that takes a free accelerator. InPlace: "
            "the old one ends, then the new one takes its place. Auto: Surge, and where there is "
            "no accelerator or quota left for that, InPlace until all pods serve."
        ),
    ] = "Auto"
    drain_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="Time a pod that is going away has to finish requests it accepted.",
        ),
    ] = 60
    auth: Annotated[Auth, Field(description="Who may call.")] = Field(default_factory=Auth)
    ui: Annotated[Ui, Field(description="A page for people.")] = Field(default_factory=Ui)
    network_policy: Annotated[
        NetworkPolicy,
        Field(
            description="Closes the servers to all but some callers, where the cluster's network "
            "enforces policies."
        ),
    ] = Field(default_factory=NetworkPolicy)
    monitoring: Annotated[Monitoring, Field(description="How Prometheus finds the pods.")] = Field(
        default_factory=Monitoring
    )
    pod_template: Annotated[
        PodTemplate,
        Field(
            description="Labels, placement, variables and volumes of the pods, beside the "
            "operator's own."
        ),
    ] = Field(default_factory=PodTemplate)
    paused: Annotated[
        bool,
        Field(
            description="Leave all children as they are, until this is false again. The status is "
            "still kept; Ready is false with reason Paused."
        ),
    ] = False


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


class SecretUse(NamedTuple):
    """A Secret that the pods cannot start without, and the field that names it."""

    field: str
    name: str
    key: str


def secrets_used(spec: RerankerServiceSpec) -> Iterator[SecretUse]:
    """Yield what the variables of the server container are read from."""
    references = {
        "model.tokenSecretRef": spec.model.token_secret_ref,
        "auth.tokenSecretRef": spec.auth.token_secret_ref,
        **{
            f"podTemplate.env {variable.name}": variable.value_from.secret_key_ref
            for variable in spec.pod_template.env
            if variable.value_from
        },
    }
    for field, reference in references.items():
        if reference is not None:
            yield SecretUse(f"spec.{field}", reference.name, reference.key)


def parse(body: Mapping[str, Any]) -> RerankerService:
    """Read an object as the API server, or a user's file, holds it.

    A file has no UID and generation; they read as empty and 0.

    Raises:
        InvalidSpec: naming each wrong field. Most of it the schema refuses, so that such an object
            was stored under another version of the CRD.
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
            f"{'.'.join(str(part) for part in ('spec', *fault['loc']))}: {fault['msg']}"
            for fault in error.errors()
        ]
        raise InvalidSpec("; ".join(faults)) from error
