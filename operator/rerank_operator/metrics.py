"""Prometheus metrics of the operator, by the names that controller-runtime gives them.

So dashboards and alerts made for other operators work for this one.

Source: The Kubebuilder Book, "Default Exported Metrics References".
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

# A second series beside each counter that tells when the process began, which Kubernetes knows.
disable_created_metrics()

CONTROLLER = "rerankerservice"

# From a pass that finds nothing to do to one whose calls all run into their time limits.
PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# What `code` holds for a request that got no answer, as client-go has it.
NO_ANSWER = "<error>"


class Metrics:
    """What one operator counts. It has a registry of its own, so a process can hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.reconciles = Counter(
            "controller_runtime_reconcile",
            "Passes, by result: success, or error for one that is tried again.",
            ["controller", "result"],
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "controller_runtime_reconcile_errors",
            "Passes that are tried again.",
            ["controller"],
            registry=self.registry,
        ).labels(CONTROLLER)
        self.reconcile_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Length of a pass.",
            ["controller"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        ).labels(CONTROLLER)
        self.max_concurrent_reconciles = Gauge(
            "controller_runtime_max_concurrent_reconciles",
            "Most passes at once.",
            ["controller"],
            registry=self.registry,
        ).labels(CONTROLLER)
        self.active_workers = self._queue_gauge(
            "controller_runtime_active_workers", "Passes under way.", "controller"
        )
        self.depth = self._queue_gauge("workqueue_depth", "Keys that wait for a worker.")
        self.unfinished_seconds = self._queue_gauge(
            "workqueue_unfinished_work_seconds",
            "How long the passes under way have run, added up; it grows when one is stuck.",
        )
        self.longest_running_seconds = self._queue_gauge(
            "workqueue_longest_running_processor_seconds",
            "How long the oldest pass under way has run.",
        )
        self.adds = Counter(
            "workqueue_adds", "Keys queued.", ["name"], registry=self.registry
        ).labels(CONTROLLER)
        self.retries = Counter(
            "workqueue_retries",
            "Keys queued again after an error.",
            ["name"],
            registry=self.registry,
        ).labels(CONTROLLER)
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "How long a key waits for a worker.",
            ["name"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        ).labels(CONTROLLER)
        self.work_seconds = Histogram(
            "workqueue_work_duration_seconds",
            "How long a worker is busy with a key.",
            ["name"],
            buckets=PASS_BUCKETS,
            registry=self.registry,
        ).labels(CONTROLLER)
        self.requests = Counter(
            "rest_client_requests",
            f"Requests to the API server by status code; {NO_ANSWER} got no answer.",
            ["code", "method", "host"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "leader_election_master_status",
            "1 while this operator may write, 0 while it stands by or could not renew its Lease.",
            ["name"],
            registry=self.registry,
        )
        for result in ("success", "error"):
            self.reconciles.labels(CONTROLLER, result)

    def count_pass(self, settled: bool, seconds: float) -> None:
        """Count one pass that has ended."""
        self.reconciles.labels(CONTROLLER, "success" if settled else "error").inc()
        self.reconcile_seconds.observe(seconds)
        if not settled:
            self.reconcile_errors.inc()

    def _queue_gauge(self, name: str, text: str, label: str = "name") -> Gauge:
        return Gauge(name, text, [label], registry=self.registry).labels(CONTROLLER)
