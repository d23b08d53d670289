from collections import Counter
from types import SimpleNamespace

from prometheus_client.parser import text_string_to_metric_families

from rerank_server.engines import vllm_metrics
from rerank_server.metrics import Metrics


def stats(waiting: int) -> SimpleNamespace:
    """Return what vLLM's scheduler tells after a step, as far as we read it."""
    return SimpleNamespace(
        num_running_reqs=0,
        num_waiting_reqs=waiting,
        kv_cache_usage=0.5,
        prefix_cache_stats=SimpleNamespace(queries=10, hits=4),
    )


def test_metrics_of_each_engine_and_of_the_process_stand_beside_ours() -> None:
    for engine, waiting in ((0, 3), (1, 7), (0, 5)):
        vllm_metrics.record(engine, stats(waiting))

    text = Metrics().text().decode()

    families = list(text_string_to_metric_families(text))
    names = Counter(family.name for family in families)
    assert 'vllm:num_requests_waiting{engine="0"} 5.0' in text
    assert 'vllm:num_requests_waiting{engine="1"} 7.0' in text
    assert 'vllm:prefix_cache_hits_total{engine="0"} 8.0' in text
    assert {"rerank_queue_depth", "process_resident_memory_bytes"} <= names.keys()
    assert set(names.values()) == {1}


def test_two_servers_of_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()

    one.pairs.inc(5)

    assert b"rerank_pairs_total 5.0" in one.text()
    assert b"rerank_pairs_total 0.0" in other.text()
