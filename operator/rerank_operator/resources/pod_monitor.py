"""The PodMonitor, by which the Prometheus operator finds the pods."""

from rerank_operator.api import Manifest, RerankerService
from rerank_operator.names import POD_MONITORS, instance, selector
from rerank_operator.resources.metadata import build_metadata


def build_pod_monitor(reranker: RerankerService) -> Manifest | None:
    """Return the monitor; None unless it is asked for."""
    monitoring = reranker.spec.monitoring
    if not monitoring.pod_monitor:
        return None
    metadata = build_metadata(reranker)
    return {
        "apiVersion": POD_MONITORS.api_version,
        "kind": POD_MONITORS.name,
        "metadata": metadata | {"labels": monitoring.labels | metadata["labels"]},
        "spec": {
            "selector": {"matchLabels": selector(instance(reranker.name))},
            "podMetricsEndpoints": [{"port": "http", "path": "/metrics"}],
        },
    }
