from collections import Counter

from prometheus_client import REGISTRY, Gauge
from prometheus_client.parser import text_string_to_metric_families

from rerank_server.metrics import Metrics


def test_metrics_of_vllm_and_of_the_process_stand_beside_ours() -> None:
    gauge = Gauge("vllm:num_requests_waiting", "As vLLM registers it, globally.")
    gauge.set(3)

    text = Metrics().text().decode()
    REGISTRY.unregister(gauge)

    families = list(text_string_to_metric_families(text))
    names = Counter(family.name for family in families)
    assert "vllm:num_requests_waiting 3.0" in text
    assert {"rerank_queue_depth", "process_resident_memory_bytes"} <= names.keys()
    assert set(names.values()) == {1}


def test_two_servers_of_one_process_count_for_themselves() -> None:
    one, other = Metrics(), Metrics()

    one.pairs.inc(5)

    assert b"rerank_pairs_total 5.0" in one.text()
    assert b"rerank_pairs_total 0.0" in other.text()
