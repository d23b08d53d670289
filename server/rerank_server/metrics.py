"""Prometheus metrics of the server, declared once."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

# A second series beside each counter that tells when the process began, which Kubernetes knows.
disable_created_metrics()

# From a cached query with one short document to a thousand long ones on a CPU.
LATENCY_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What one server counts. It has a registry of its own, so a process can hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "rerank_requests",
            "Requests to a ranking route, by status code; 499 is a client that went away.",
            ["code"],
            registry=self.registry,
        )
        self.pairs = Counter("rerank_pairs", "Query-document pairs scored.", registry=self.registry)
        self.tokens = Counter(
            "rerank_tokens", "Tokens of the pairs scored.", registry=self.registry
        )
        self.truncated_documents = Counter(
            "rerank_truncated_documents",
            "Documents cut to fit the longest pair the model takes.",
            registry=self.registry,
        )
        # Without labels: autoscalers read it straight from the pod and add nothing up.
        self.queue_depth = Gauge(
            "rerank_queue_depth",
            "Query-document pairs waiting or running.",
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "rerank_request_seconds",
            "Time from a ranking request's arrival to its answer.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format."""
        return generate_latest(self.registry)
