import json
from typing import Any

import pytest

from rerank_server.dialects import About, Body, read
from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranking, Scored

ABOUT = About("rerank-1", "m", 0)


def read_tei(**fields: Any) -> Body:
    return read("/rerank", json.dumps({"query": "q", "texts": ["a", "b"]} | fields).encode())


def test_texts_are_one_ranking() -> None:
    request = read_tei(model="m", truncate=True, truncation_direction="Right")

    assert request.rankings() == [Ranking("q", ["a", "b"], place="texts[{}]")]


@pytest.mark.parametrize(
    "fields",
    [{"truncate": False}, {"truncation_direction": "left"}, {"truncation_direction": "Left"}],
)
def test_texts_that_would_be_cut_otherwise_than_asked_are_refused(fields: dict[str, Any]) -> None:
    assert read_tei(**fields).rankings()[0].truncate is False


def test_answer_is_the_bare_list_in_order() -> None:
    body = read_tei().answer([Scored([0.0, 2.0], tokens=31)], ABOUT)

    assert body == [
        {"index": 1, "score": pytest.approx(0.8808, abs=1e-4)},
        {"index": 0, "score": 0.5},
    ]


def test_answer_has_logits_and_texts_on_request() -> None:
    request = read_tei(raw_scores=True, return_text=True, top_n=1)

    body = request.answer([Scored([0.0, 2.0])], ABOUT)

    assert body == [{"index": 1, "score": 2.0, "text": "b"}]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"texts": []}, "texts is an empty list: give"),
        ({"texts": ["a", ["b"]]}, "texts[1] is a list: give"),
        ({"query": None}, "query is missing: give"),
        ({"truncation_direction": "up"}, 'truncation_direction is "up": give'),
    ],
)
def test_mistake_is_named_with_field_value_and_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_tei(**fields)

    assert str(refusal.value).startswith(message)
