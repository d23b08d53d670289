"""What decides how many pods there are: KEDA's ScaledObject, or a HorizontalPodAutoscaler.

Both write `spec.replicas` of the RerankerService, through its /scale. The Deployment's replicas
have one writer, which is the operator.
"""

from collections.abc import Iterator

from rerank_operator.api import Autoscaling, Manifest, RerankerService
from rerank_operator.api.autoscaling import Prometheus
from rerank_operator.names import (
    AUTOSCALERS,
    HTTP_PORT,
    QUEUE_DEPTH_METRIC,
    QUEUE_WAIT_METRIC,
    RERANKERS,
    SCALED_OBJECTS,
    UTILIZATION_METRIC,
    instance,
)
from rerank_operator.resources.metadata import build_metadata

# KEDA's own look at the metric; it counts failures by it, the autoscaler asks for itself.
POLLING_SECONDS = 15
# With more, the simulation in docs/autoscaling.md keeps requests waiting; with less it costs pods.
UTILIZATION = 0.7
FALLBACK = {"failureThreshold": 3, "replicas": 1, "behavior": "currentReplicasIfHigher"}


def build_autoscaler(reranker: RerankerService) -> Manifest | None:
    """Return the one autoscaler of `reranker`; None for a fixed number of pods."""
    scaling = reranker.spec.autoscaling
    if scaling is None:
        return None
    return _scaled_object(reranker, scaling) if scaling.type == "keda" else _hpa(reranker, scaling)


def _scaled_object(reranker: RerankerService, scaling: Autoscaling) -> Manifest:
    """Return the ScaledObject.

    Source: https://keda.sh/docs/2.20/reference/scaledobject-spec/
    """
    # Where the metric is gone, the HorizontalPodAutoscaler leaves the pods that there are, and says
    # so, which it would not behind a fallback. But it cannot wake a service from none.
    wakes = scaling.min_replicas == 0 and scaling.prometheus and scaling.prometheus.query
    return {
        "apiVersion": SCALED_OBJECTS.api_version,
        "kind": SCALED_OBJECTS.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "scaleTargetRef": _target(reranker),
            "minReplicaCount": scaling.min_replicas,
            "maxReplicaCount": scaling.max_replicas,
            "pollingInterval": POLLING_SECONDS,
            # From the last pods to none.
            "cooldownPeriod": scaling.scale_down_stabilization_seconds,
            **({"fallback": FALLBACK} if wakes else {}),
            "advanced": {
                "restoreToOriginalReplicaCount": False,
                "horizontalPodAutoscalerConfig": {"behavior": _behavior(scaling)},
            },
            "triggers": [
                *_triggers(reranker, scaling),
                *(
                    {
                        "type": "cron",
                        "metadata": {
                            "timezone": schedule.timezone,
                            "start": schedule.start,
                            "end": schedule.end,
                            "desiredReplicas": str(schedule.replicas),
                        },
                    }
                    for schedule in scaling.schedules or ()
                ),
            ],
        },
    }


def _triggers(reranker: RerankerService, scaling: Autoscaling) -> Iterator[Manifest]:
    """Yield what KEDA asks, of which the largest number of pods counts."""
    name, namespace = instance(reranker.name), reranker.namespace
    prometheus = scaling.prometheus
    if prometheus is not None and prometheus.query is not None:
        yield _query(prometheus, prometheus.query, _target_value(scaling))
        return
    for metric, target in _metrics(scaling):
        if prometheus is None:
            # The host has to end in .svc and the port is the pods', not the Service's: KEDA asks
            # the Service's endpoints one by one.
            yield {
                "type": "metrics-api",
                "metricType": "AverageValue",
                "metadata": {
                    "url": f"http://{name}.{namespace}.svc:{HTTP_PORT}/metrics",
                    "format": "prometheus",
                    "valueLocation": metric,
                    "targetValue": f"{target:g}",
                    "aggregateFromKubeServiceEndpoints": "true",
                    "aggregationType": "sum",
                },
            }
        else:
            # Of any ReplicaSet's pods, and not of a service whose name begins the same. Of a long
            # name the API server cuts the second dash: it generates names from 58 letters.
            labels = f'namespace="{namespace}",pod=~"{name}-[a-z0-9]+(-[a-z0-9]+)?"'
            yield _query(prometheus, f"sum({metric}{{{labels}}})", target)


def _query(prometheus: Prometheus, query: str, target: float) -> Manifest:
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": prometheus.server_address,
            "query": query,
            "threshold": f"{target:g}",
            # By default no data is no work, and pods go.
            "ignoreNullValues": "false",
        },
    }


def _hpa(reranker: RerankerService, scaling: Autoscaling) -> Manifest:
    external = scaling.external_metric
    if external is None:
        metrics = [
            {"type": "Pods", "pods": {"metric": {"name": metric}, "target": _average(target)}}
            for metric, target in _metrics(scaling)
        ]
    else:
        selector = {"selector": {"matchLabels": external.match_labels}}
        named = {"name": external.name} | (selector if external.match_labels else {})
        target = _average(_target_value(scaling))
        metrics = [{"type": "External", "external": {"metric": named, "target": target}}]
    return {
        "apiVersion": AUTOSCALERS.api_version,
        "kind": AUTOSCALERS.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "scaleTargetRef": _target(reranker),
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": metrics,
            "behavior": _behavior(scaling),
        },
    }


def _behavior(scaling: Autoscaling) -> Manifest:
    """Up at once, and down slowly: a pod that goes takes minutes to come back."""
    seconds = scaling.scale_down_stabilization_seconds
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0},
        "scaleDown": {
            "stabilizationWindowSeconds": seconds,
            "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}],
        },
    }


def _target(reranker: RerankerService) -> Manifest:
    return {
        "apiVersion": RERANKERS.api_version,
        "kind": RERANKERS.name,
        "name": reranker.name,
    }


def _metrics(scaling: Autoscaling) -> list[tuple[str, float]]:
    """Return the pods' metrics and what each should be per pod.

    The queue tells when there are too few pods, and little once there are enough: by it alone they
    would go until there are too few again.
    """
    auto = scaling.target_queue_depth == "auto"
    queue = QUEUE_WAIT_METRIC if auto else QUEUE_DEPTH_METRIC
    return [(queue, _target_value(scaling)), (UTILIZATION_METRIC, UTILIZATION)]


def _target_value(scaling: Autoscaling) -> float:
    if scaling.target_queue_depth == "auto":
        return scaling.target_wait_seconds
    return scaling.target_queue_depth


def _average(target: float) -> Manifest:
    """Return a target per pod, as the API server writes quantities."""
    thousandths = round(1000 * target)
    value = f"{thousandths}m" if thousandths % 1000 else f"{thousandths // 1000}"
    return {"type": "AverageValue", "averageValue": value}
