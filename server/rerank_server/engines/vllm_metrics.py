"""What vLLM's scheduler tells about itself, under the names of vLLM's own metrics.

Those that vLLM's front end counts are not among them: the server takes its place, and its own
metrics theirs. Source: https://docs.vllm.ai/en/stable/usage/metrics.html
"""

from typing import Any

from prometheus_client import Counter, Gauge

# In the global registry, as vLLM's own: there is one engine in a process.
RUNNING = Gauge("vllm:num_requests_running", "Pairs in the engine's steps.")
WAITING = Gauge("vllm:num_requests_waiting", "Pairs that wait in the engine for a step.")
KV_CACHE = Gauge("vllm:kv_cache_usage_perc", "Part of the KV cache in use; 1 is all of it.")
QUERIES = Counter("vllm:prefix_cache_queries", "Tokens looked up in the prefix cache.")
HITS = Counter("vllm:prefix_cache_hits", "Tokens found in the prefix cache.")
METRICS = (RUNNING, WAITING, KV_CACHE, QUERIES, HITS)


def record(stats: Any) -> None:
    """Take over vLLM's `SchedulerStats` of one step."""
    RUNNING.set(stats.num_running_reqs)
    WAITING.set(stats.num_waiting_reqs)
    KV_CACHE.set(stats.kv_cache_usage)
    QUERIES.inc(stats.prefix_cache_stats.queries)
    HITS.inc(stats.prefix_cache_stats.hits)
