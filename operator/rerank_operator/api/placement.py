"""Which nodes the pods run on; each type has the form that it has in any pod."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from rerank_operator.api.labels import LabelSelector, LabelValue
from rerank_operator.api.schema import PRESERVED, ApiModel, EmptyIsUnset


def _filled(value: Any) -> Any:
    """Drop empty lists and texts, which the API server drops too, and which then look like drift;
    an empty object it keeps, and that picks everything."""
    if isinstance(value, dict):
        return {key: _filled(child) for key, child in value.items() if child not in (None, "", [])}
    if isinstance(value, list):
        return [_filled(child) for child in value]
    return value


class Toleration(ApiModel):
    """A taint that the pods put up with; as in any pod."""

    key: Annotated[
        str | None,
        Field(max_length=317, description="The taint. Unset: all of them."),
        EmptyIsUnset,
    ] = None
    operator: Annotated[
        Literal["Equal", "Exists"] | None,
        Field(description="How its value is compared. Unset: Equal."),
    ] = None
    value: Annotated[
        LabelValue | None, Field(description="The taint's value, for Equal."), EmptyIsUnset
    ] = None
    effect: Annotated[
        Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None,
        Field(description="The taint's effect. Unset: all of them."),
    ] = None
    toleration_seconds: Annotated[
        int | None,
        Field(ge=0, description="Time until a pod leaves, for NoExecute. Unset: it stays."),
    ] = None


AffinityPart = Annotated[
    dict[str, Any] | None, BeforeValidator(_filled), Field(json_schema_extra=PRESERVED)
]


class Affinity(ApiModel):
    """Which nodes the pods prefer or need; each part as in any pod."""

    node_affinity: Annotated[AffinityPart, Field(description="By labels of the nodes.")] = None
    pod_affinity: Annotated[AffinityPart, Field(description="Near other pods.")] = None
    pod_anti_affinity: Annotated[AffinityPart, Field(description="Away from other pods.")] = None


class TopologySpread(ApiModel):
    """How evenly the pods are spread; as in any pod."""

    max_skew: Annotated[
        int, Field(ge=1, le=1000, description="Most that two domains may differ by.")
    ]
    topology_key: Annotated[
        str,
        Field(
            min_length=1,
            max_length=317,
            description="Node label whose values are the domains, such as "
            "topology.kubernetes.io/zone.",
        ),
    ]
    when_unsatisfiable: Annotated[
        Literal["DoNotSchedule", "ScheduleAnyway"],
        Field(description="What happens to a pod that would exceed it."),
    ]
    label_selector: Annotated[
        LabelSelector | None,
        Field(description="Pods that are counted. Unset: those of this RerankerService."),
    ] = None
    match_label_keys: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=317)]],
        Field(
            max_length=8,
            description="Pod labels whose value has to be equal, such as pod-template-hash to "
            "count each rollout for itself.",
        ),
    ] = Field(default_factory=list)
    min_domains: Annotated[
        int | None, Field(ge=1, le=1000, description="Least number of domains. Unset: 1.")
    ] = None
    node_affinity_policy: Annotated[
        Literal["Honor", "Ignore"] | None,
        Field(description="Whether nodes out of reach by affinity count. Unset: Honor."),
    ] = None
    node_taints_policy: Annotated[
        Literal["Honor", "Ignore"] | None,
        Field(description="Whether taints that are not tolerated count. Unset: Ignore."),
    ] = None
