"""Prometheus metrics of the server, declared once."""

from prometheus_client import (
    REGISTRY,
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

SCORE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1)


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
        self.capacity = Gauge(
            "rerank_capacity_pairs_per_second",
            "Pairs that the engines do in a second: measured at start, with pairs of about a "
            "hundred tokens, and corrected by what they do when they are faster, or full.",
            registry=self.registry,
        )
        self.queue_wait = Gauge(
            "rerank_queue_wait_seconds",
            "Time that the pairs waiting or running take at that speed.",
            registry=self.registry,
        )
        self.utilization = Gauge(
            "rerank_utilization",
            "Part of the tokens that the engines could have done in the last minute that they did.",
            registry=self.registry,
        )
        self.queue_seconds = Histogram(
            "rerank_queue_seconds",
            "Time from a request's admission to its first pairs' way into an engine.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.engine_seconds = Histogram(
            "rerank_engine_seconds",
            "Time that a slice of a request's pairs was in the engine.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.scores = Histogram(
            "rerank_scores",
            "Scores given, between 0 and 1.",
            buckets=SCORE_BUCKETS,
            registry=self.registry,
        )
        self.refused = Counter(
            "rerank_refused_requests",
            "Requests that got no scores, by the error type in their answer.",
            ["error_type"],
            registry=self.registry,
        )
        self.score_check = Gauge(
            "rerank_score_check",
            "1 for what the check of scores at start has found.",
            ["result"],
            registry=self.registry,
        )
        self.model = Gauge(
            "rerank_model_info",
            "1, with what is served as labels.",
            ["model", "revision", "family", "dtype", "version"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "rerank_request_seconds",
            "Time from a ranking request's arrival to its answer.",
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )

    def text(self) -> bytes:
        """Return all metrics in the Prometheus text format.

        The process's own and those of vLLM stand in the library's global registry.
        """
        return generate_latest(self.registry) + generate_latest(REGISTRY)
