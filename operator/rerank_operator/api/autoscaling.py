"""`spec.autoscaling`: how many pods there are, by the work that waits."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from rerank_operator.api.labels import LabelValue, MapKey
from rerank_operator.api.schema import ApiModel, Matches, Rules, at_least, rule, rules

AUTO = "auto"

# The one other union that a CRD can hold, as in `Quantity`.
QueueDepth = Annotated[
    int | Literal["auto"],
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "maxLength": 32}),
    Rules(
        rule(
            f"type(self) == int ? self >= 1 && self <= 1000000 : self == '{AUTO}'",
            "autoscaling.targetQueueDepth is not valid: write auto, or a number from 1 to 1000000",
        )
    ),
]


class Prometheus(ApiModel):
    """Where KEDA asks for the queue, instead of asking the pods."""

    server_address: Annotated[
        str,
        Field(max_length=512, description="Its URL, as KEDA reaches it."),
        Matches(
            "autoscaling.prometheus.serverAddress",
            r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
            "write a URL such as http://prometheus.monitoring.svc:9090",
        ),
    ]
    query: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="What tells all the work there is, as one number: in pairs where "
            "targetQueueDepth is a number, or else in seconds. With minReplicas 0 it has to know "
            "of work before there is a pod. Unset: the sum over the pods, by the labels namespace "
            "and pod.",
        ),
    ] = None


class Schedule(ApiModel):
    """Hours in which so many pods are kept, whatever the queue."""

    start: Annotated[
        str,
        Field(max_length=128, description="When they begin, in the form of cron: 0 8 * * 1-5."),
        Matches("start", r"^\S+( +\S+){4}$", "write five fields, such as 0 8 * * 1-5"),
    ]
    end: Annotated[
        str,
        Field(max_length=128, description="When they end, likewise."),
        Matches("end", r"^\S+( +\S+){4}$", "write five fields, such as 0 20 * * 1-5"),
    ]
    timezone: Annotated[
        str,
        Field(max_length=64, description="Name of a time zone, such as Europe/Zurich."),
        Matches("timezone", r"^[A-Za-z0-9_+/-]+$", "write a name such as Europe/Zurich"),
    ] = "UTC"
    replicas: Annotated[int, Field(ge=1, le=1000, description="Pods to keep, at least.")] = 1


class ExternalMetric(ApiModel):
    """A metric that a metrics adapter of the cluster serves."""

    name: Annotated[str, Field(min_length=1, max_length=253, description="Its name.")]
    match_labels: Annotated[
        dict[MapKey, LabelValue],
        Field(max_length=32, description="Labels that pick its series."),
    ] = Field(default_factory=dict)


def _only_with(type_: str, field: str) -> dict[str, str]:
    return rule(
        f"!has(self.{field}) || self.type == '{type_}'",
        f"autoscaling.{field} is for autoscaling.type {type_}: leave it out, or change the type",
    )


class Autoscaling(ApiModel):
    """How many pods there are, by the work that waits."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.minReplicas <= self.maxReplicas",
                "autoscaling.minReplicas is above autoscaling.maxReplicas: lower it",
                "'autoscaling.minReplicas is %d but autoscaling.maxReplicas is %d: lower the "
                "first, or raise the other'.format([self.minReplicas, self.maxReplicas])",
            ),
            rule(
                "self.minReplicas > 0 || has(self.schedules) || "
                "(has(self.prometheus) && has(self.prometheus.query))",
                "autoscaling.minReplicas is 0 and nothing outside the pods tells when one is "
                "needed: set it to 1, or give prometheus.query or schedules",
            ),
            _only_with("keda", "prometheus"),
            _only_with("keda", "schedules"),
            _only_with("hpa", "externalMetric"),
        )
    )

    type: Annotated[
        Literal["keda", "hpa"],
        Field(
            description="Who scales. keda: KEDA 2.20 or later, which needs no Prometheus. hpa: a "
            "HorizontalPodAutoscaler, for a cluster with a metrics adapter."
        ),
    ] = "keda"
    min_replicas: Annotated[
        int,
        Field(
            ge=0,
            le=1000,
            description="Fewest pods. 0 needs prometheus.query or schedules: pods that are not "
            "there cannot tell of work.",
        ),
    ] = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000, description="Most pods.")]
    target_queue_depth: Annotated[
        QueueDepth,
        Field(
            description="Query-document pairs waiting or running, per pod. auto: as many as a pod "
            "does in targetWaitSeconds, at the speed that it measures."
        ),
    ] = "auto"
    target_wait_seconds: Annotated[
        float,
        Field(
            ge=0.05,
            le=3600,
            description="Work a pod may have before it, where targetQueueDepth is auto.",
        ),
        at_least("autoscaling.targetWaitSeconds", 0.05),
    ] = 1.0
    scale_down_stabilization_seconds: Annotated[
        int,
        Field(
            ge=0,
            le=3600,
            description="How long fewer pods have to suffice before one goes. Then one goes a "
            "minute.",
        ),
    ] = 300
    prometheus: Annotated[
        Prometheus | None,
        Field(description="Where KEDA asks for the queue. Unset: it asks the pods."),
    ] = None
    schedules: Annotated[
        list[Schedule] | None,
        Field(
            min_length=1,
            max_length=16,
            description="Hours in which so many pods are kept, whatever the queue (KEDA's cron).",
        ),
    ] = None
    external_metric: Annotated[
        ExternalMetric | None,
        Field(
            description="What the HorizontalPodAutoscaler asks for, as a sum over the pods. Unset: "
            "the pods' own, rerank_queue_depth or, for auto, rerank_queue_wait_seconds, and "
            "rerank_utilization."
        ),
    ] = None
