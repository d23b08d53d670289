"""`spec.podTemplate`: what the pods get beside what the operator gives them."""

from typing import Annotated

from pydantic import ConfigDict, Field

from rerank_operator.api.labels import RESERVED_LABELS, LabelValue, MapKey, reserved_keys
from rerank_operator.api.placement import Affinity, Toleration, TopologySpread
from rerank_operator.api.schema import ApiModel, ObjectName, Rules, dns_name, merged_by, rule, rules
from rerank_operator.api.variables import Variable
from rerank_operator.api.volumes import Volume, VolumeMount


class PodTemplate(ApiModel):
    """Labels, placement, variables and volumes of the pods, beside the operator's own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) && "
                "self.volumes.exists(volume, volume.name == mount.name))",
                "podTemplate.volumeMounts names a volume that podTemplate.volumes does not hold: "
                "add it there",
            )
        )
    )

    labels: Annotated[
        dict[MapKey, LabelValue],
        Field(
            max_length=32,
            description="Labels of the pods.",
        ),
        Rules(reserved_keys("podTemplate.labels", *RESERVED_LABELS)),
    ] = Field(default_factory=dict)
    annotations: Annotated[
        dict[MapKey, Annotated[str, Field(max_length=8192)]],
        Field(
            max_length=32,
            description="Annotations of the pods.",
        ),
        Rules(reserved_keys("podTemplate.annotations")),
    ] = Field(default_factory=dict)
    node_selector: Annotated[
        dict[MapKey, LabelValue],
        Field(max_length=32, description="Labels that a node must have to run the pods."),
    ] = Field(default_factory=dict)
    tolerations: Annotated[
        list[Toleration], Field(max_length=32, description="Taints that the pods put up with.")
    ] = Field(default_factory=list)
    affinity: Annotated[
        Affinity | None, Field(description="Which nodes the pods prefer or need.")
    ] = None
    topology_spread_constraints: Annotated[
        list[TopologySpread],
        Field(
            max_length=8,
            description="How evenly the pods are spread over zones or nodes.",
            json_schema_extra=merged_by("topologyKey", "whenUnsatisfiable"),
        ),
    ] = Field(default_factory=list)
    priority_class_name: Annotated[
        str | None,
        Field(max_length=253, description="PriorityClass of the pods. Unset: the cluster's."),
        dns_name("podTemplate.priorityClassName"),
    ] = None
    runtime_class_name: Annotated[
        str | None,
        Field(max_length=253, description="RuntimeClass of the pods, such as nvidia. Unset: none."),
        dns_name("podTemplate.runtimeClassName"),
    ] = None
    scheduler_name: Annotated[
        str | None,
        Field(max_length=253, description="Scheduler of the pods. Unset: the cluster's."),
        dns_name("podTemplate.schedulerName"),
    ] = None
    image_pull_secrets: Annotated[
        list[ObjectName],
        Field(
            max_length=16,
            description="Secrets with credentials of the image's registry.",
            json_schema_extra=merged_by("name"),
        ),
    ] = Field(default_factory=list)
    env: Annotated[
        list[Variable],
        Field(
            max_length=64,
            description="Variables of the server container, such as HTTPS_PROXY. Those that the "
            "operator sets are refused.",
            json_schema_extra=merged_by("name"),
        ),
    ] = Field(default_factory=list)
    volumes: Annotated[
        list[Volume],
        Field(
            max_length=16,
            description="Volumes of the pods.",
            json_schema_extra=merged_by("name"),
        ),
    ] = Field(default_factory=list)
    volume_mounts: Annotated[
        list[VolumeMount],
        Field(
            max_length=16,
            description="Where they are found in the server container.",
            json_schema_extra=merged_by("mountPath"),
        ),
    ] = Field(default_factory=list)
