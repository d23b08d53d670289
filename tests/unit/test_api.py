from typing import Any

import pytest

from builders import make_body, make_reranker
from rerank_operator.api import parse, secrets_used
from rerank_operator.errors import InvalidSpec


def test_only_the_model_name_is_needed() -> None:
    spec = make_reranker().spec

    assert spec.replicas == 1
    assert spec.accelerator.resource == "nvidia.com/gpu"
    assert spec.engine.max_model_len == 4096
    assert spec.drain_seconds == 60


def test_unknown_fields_of_a_newer_version_are_dropped() -> None:
    reranker = make_reranker(warmth={"degrees": 4})

    assert reranker == make_reranker()


def test_wrong_object_names_each_field() -> None:
    body = make_body(replicas=-1, engine={"dtype": "int4"})

    with pytest.raises(InvalidSpec) as caught:
        parse(body)

    assert "spec.replicas" in str(caught.value)
    assert "spec.engine.dtype" in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"model": {"name": "a/b", "revision": "a b"}}, "model.revision is 'a b': write a branch"),
        ({"model": {"name": "a/b\n"}}, "model.name is 'a/b\\n'"),
        ({"engine": {"extraArgs": {"port": 1, "model": "x"}}}, "holds model, port: leave it out"),
        ({"limits": {"trustedProxies": ["10.0.0.300/8"]}}, "spec.limits.trustedProxies.0"),
        ({"limits": {"blockedPatterns": ["a\rb"]}}, "write it in one line"),
    ],
)
def test_what_a_schema_of_another_version_let_through_is_refused(
    spec: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse(make_body(**spec))

    assert sentence in str(caught.value)


def test_secrets_are_told_with_the_fields_that_name_them() -> None:
    variables = [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}},
        {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
        {"name": "C", "value": "c"},
    ]
    reranker = make_reranker(
        model={"name": "a/b", "tokenSecretRef": {"name": "hub"}},
        auth={"tokenSecretRef": {"name": "api", "key": "a"}},
        podTemplate={"env": variables},
    )

    assert list(secrets_used(reranker.spec)) == [
        ("spec.model.tokenSecretRef", "hub", "token"),
        ("spec.auth.tokenSecretRef", "api", "a"),
        ("spec.podTemplate.env A", "mine", "k"),
    ]
