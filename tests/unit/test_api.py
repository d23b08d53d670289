import pytest

from builders import make_body, make_reranker
from rerank_operator.api import parse
from rerank_operator.errors import InvalidSpec


def test_only_the_model_name_is_needed() -> None:
    spec = make_reranker().spec

    assert spec.replicas == 1
    assert spec.accelerator.resource == "nvidia.com/gpu"
    assert spec.engine.max_model_len == 4096
    assert spec.drain_seconds == 60


def test_unknown_fields_of_a_newer_version_are_dropped() -> None:
    reranker = make_reranker(autoscaling={"maxReplicas": 4})

    assert reranker == make_reranker()


def test_wrong_object_names_each_field() -> None:
    body = make_body(replicas=-1, engine={"dtype": "int4"})

    with pytest.raises(InvalidSpec) as caught:
        parse(body)

    assert "spec.replicas" in str(caught.value)
    assert "spec.engine.dtype" in str(caught.value)
