"""What decides how many pods there are: KEDA's ScaledObject, or a HorizontalPodAutoscaler.

Both write `spec.replicas` of the RerankerService, through its /scale. The Deployment's replicas
have one writer, which is the operator.
"""

from rerank_operator.api import Autoscaling, Manifest, RerankerService
from rerank_operator.names import (
    AUTOSCALERS,
    HTTP_PORT,
    QUEUE_DEPTH_METRIC,
    QUEUE_WAIT_METRIC,
    RERANKERS,
    SCALED_OBJECTS,
    instance,
)
from rerank_operator.resources.metadata import build_metadata

# KEDA's own look at the metric; it counts failures by it, the autoscaler asks for itself.
POLLING_SECONDS = 15
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
    wakes = scaling.min_replicas == 0 and scaling.prometheus is not None
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
                _prometheus(reranker, scaling) if scaling.prometheus else _pods(reranker, scaling),
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


def _pods(reranker: RerankerService, scaling: Autoscaling) -> Manifest:
    """Return the trigger that asks each pod.

    Its host has to end in .svc and its port is the pods', not the Service's: KEDA asks the
    Service's endpoints one by one.
    """
    host = f"{instance(reranker.name)}.{reranker.namespace}.svc"
    return {
        "type": "metrics-api",
        "metricType": "AverageValue",
        "metadata": {
            "url": f"http://{host}:{HTTP_PORT}/metrics",
            "format": "prometheus",
            "valueLocation": _metric(scaling),
            "targetValue": f"{_target_value(scaling):g}",
            "aggregateFromKubeServiceEndpoints": "true",
            "aggregationType": "sum",
        },
    }


def _prometheus(reranker: RerankerService, scaling: Autoscaling) -> Manifest:
    assert scaling.prometheus is not None
    # Those of the one ReplicaSet or other, and not of a service whose name begins the same.
    pods = f"{instance(reranker.name)}-[a-z0-9]+-[a-z0-9]+"
    own = f'sum({_metric(scaling)}{{namespace="{reranker.namespace}",pod=~"{pods}"}})'
    return {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": scaling.prometheus.server_address,
            "query": scaling.prometheus.query or own,
            "threshold": f"{_target_value(scaling):g}",
            # By default no data is no work, and pods go.
            "ignoreNullValues": "false",
        },
    }


def _hpa(reranker: RerankerService, scaling: Autoscaling) -> Manifest:
    target = {"type": "AverageValue", "averageValue": _quantity(_target_value(scaling))}
    external = scaling.external_metric
    if external is None:
        metric = {"type": "Pods", "pods": {"metric": {"name": _metric(scaling)}, "target": target}}
    else:
        selector = {"selector": {"matchLabels": external.match_labels}}
        named = {"name": external.name} | (selector if external.match_labels else {})
        metric = {"type": "External", "external": {"metric": named, "target": target}}
    return {
        "apiVersion": AUTOSCALERS.api_version,
        "kind": AUTOSCALERS.name,
        "metadata": build_metadata(reranker),
        "spec": {
            "scaleTargetRef": _target(reranker),
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [metric],
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


def _metric(scaling: Autoscaling) -> str:
    return QUEUE_WAIT_METRIC if scaling.target_queue_depth == "auto" else QUEUE_DEPTH_METRIC


def _target_value(scaling: Autoscaling) -> float:
    if scaling.target_queue_depth == "auto":
        return scaling.target_wait_seconds
    return scaling.target_queue_depth


def _quantity(value: float) -> str:
    """Return `value` as the API server writes quantities."""
    thousandths = round(1000 * value)
    return f"{thousandths}m" if thousandths % 1000 else f"{thousandths // 1000}"
