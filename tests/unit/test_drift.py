from typing import Any

import pytest

from rerank_operator.drift import digest, holds, quantity

CONTAINER = {"name": "server", "image": "a:1", "env": [{"name": "A", "value": "1"}]}


@pytest.mark.parametrize(
    ("observed", "wanted"),
    [
        ({"a": 1, "b": 2}, {"a": 1}),
        ({"containers": [{"name": "sidecar"}, CONTAINER]}, {"containers": [CONTAINER]}),
        ({"requests": {"cpu": "1", "memory": "1Gi"}}, {"requests": {"cpu": "1000m"}}),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1024Mi"}}),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1073741824"}}),
        ({"limits": {"cpu": "1m"}}, {"limits": {"cpu": "1n"}}),
        ({"limits": {"cpu": "1001m"}}, {"limits": {"cpu": f"1.{'0' * 28}1"}}),
        ({"drop": ["ALL"]}, {"drop": ["ALL"]}),
        (
            {"volumeMounts": [{"mountPath": "/b", "name": "x"}, {"mountPath": "/a", "name": "y"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "y"}]},
        ),
        (
            {"volumeMounts": [{"mountPath": "/b", "name": "x"}, {"mountPath": "/a", "name": "x"}]},
            {"volumeMounts": [{"mountPath": "/a", "name": "x"}, {"mountPath": "/b", "name": "x"}]},
        ),
    ],
)
def test_additions_and_other_spellings_are_no_drift(observed: Any, wanted: Any) -> None:
    assert holds(observed, wanted)


@pytest.mark.parametrize(
    ("observed", "wanted"),
    [
        ({"a": 2}, {"a": 1}),
        ({}, {"a": {}}),
        ({"a": None}, {"a": False}),
        ({"containers": [{**CONTAINER, "image": "b:1"}]}, {"containers": [CONTAINER]}),
        ({"containers": []}, {"containers": [CONTAINER]}),
        ({"requests": {"cpu": "2"}}, {"requests": {"cpu": "1"}}),
        ({"requests": {}}, {"requests": {"cpu": "1"}}),
        ({"drop": []}, {"drop": ["ALL"]}),
        ({"drop": ["ALL", "X"]}, {"drop": ["ALL"]}),
        ({"value": "1"}, {"value": "1000m"}),
    ],
)
def test_lost_or_changed_values_are_drift(observed: Any, wanted: Any) -> None:
    assert not holds(observed, wanted)


@pytest.mark.parametrize(
    ("one", "other"),
    [("1000m", 1), ("0.5", "500m"), ("1k", 1000), ("1Ki", 1024), ("1e3", "1k"), ("2E", "2000P")],
)
def test_quantities_compare_by_value(one: str | int, other: str | int) -> None:
    assert quantity(one) == quantity(other)


def test_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
