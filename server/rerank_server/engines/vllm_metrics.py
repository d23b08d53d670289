"""What vLLM's scheduler tells about itself, under the names of vLLM's own metrics.

Those that vLLM's front end counts are not among them: the server takes its place, and its own
metrics theirs. Source: https://docs.vllm.ai/en/stable/usage/metrics.html
"""

from typing import Any

from prometheus_client import Counter, Gauge

# As vLLM labels its own; it counts from 0.
LABELS = ["engine"]
# In the global registry, as vLLM's own: there is one model in a process.
RUNNING = Gauge("vllm:num_requests_running", "Pairs in the engine's steps.", LABELS)
WAITING = Gauge("vllm:num_requests_waiting", "Pairs that wait in the engine for a step.", LABELS)
KV_CACHE = Gauge("vllm:kv_cache_usage_perc", "Part of the KV cache in use; 1 is all of it.", LABELS)
QUERIES = Counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.", LABELS)
HITS = Counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache.", LABELS)
METRICS = (RUNNING, WAITING, KV_CACHE, QUERIES, HITS)


def record(engine: int, stats: Any) -> None:
    """Take over vLLM's `SchedulerStats` of one step of an engine."""
    RUNNING.labels(engine).set(stats.num_running_reqs)
    WAITING.labels(engine).set(stats.num_waiting_reqs)
    KV_CACHE.labels(engine).set(stats.kv_cache_usage)
    QUERIES.labels(engine).inc(stats.prefix_cache_stats.queries)
    HITS.labels(engine).inc(stats.prefix_cache_stats.hits)
