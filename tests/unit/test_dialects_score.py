import json
from typing import Any

import pytest

from rerank_server.dialects import About, Body, read
from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranking, Scored

ABOUT = About("rerank-1", "m", 1700000000)


def read_score(**fields: Any) -> Body:
    return read("/score", json.dumps(fields).encode())


@pytest.mark.parametrize("first", ["queries", "text_1", "query", "data_1"])
@pytest.mark.parametrize("second", ["documents", "text_2", "items", "data_2"])
def test_one_query_is_scored_against_all_documents(first: str, second: str) -> None:
    request = read_score(**{first: "q", second: ["a", {"text": "b"}]})

    assert request.rankings() == [Ranking("q", ["a", "b"])]


def test_pair_may_come_without_lists() -> None:
    assert read_score(text_1="q", text_2="a").rankings() == [Ranking("q", ["a"])]


def test_as_many_queries_as_documents_are_pairs() -> None:
    request = read_score(text_1=["q", "r"], text_2=["a", "b"], instruct="i", truncate=False)

    assert request.rankings() == [
        Ranking("q", ["a"], "i", truncate=False, place="documents[0]"),
        Ranking("r", ["b"], "i", truncate=False, place="documents[1]"),
    ]


def test_answer_is_in_the_order_of_the_request() -> None:
    request = read_score(text_1=["q", "r"], text_2=["a", "b"])

    body = request.answer([Scored([0.0], tokens=3), Scored([2.0], tokens=4, cut=[0])], ABOUT)

    assert body == {
        "id": "rerank-1",
        "object": "list",
        "created": 1700000000,
        "model": "m",
        "data": [
            {"index": 0, "object": "score", "score": 0.5},
            {"index": 1, "object": "score", "score": pytest.approx(0.8808, abs=1e-4)},
        ],
        "usage": {"prompt_tokens": 7, "total_tokens": 7, "truncated_documents": 1},
    }


@pytest.mark.parametrize("field", [{"raw_scores": True}, {"use_activation": False}])
def test_logits_are_given_as_they_are(field: dict[str, bool]) -> None:
    body = read_score(text_1="q", text_2=["a"], **field).answer([Scored([2.0])], ABOUT)

    assert body["data"][0]["score"] == 2.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"text_1": ["q", "r", "s"], "text_2": ["a", "b"]},
            "there are 3 queries and 2 documents: give one query, or as many",
        ),
        ({"text_1": ["q", "r"], "text_2": "a"}, "there are 2 queries and 1 documents: give"),
        ({"text_1": ["q", " "], "text_2": ["a", "b"]}, "text_1[1] is blank: give a text"),
        ({"text_1": [], "text_2": ["a"]}, "text_1 is an empty list: give a text"),
        ({"text_1": "q", "text_2": [["a"]]}, "text_2[0] is a list: give a list of texts"),
        ({"text_1": "q"}, "documents is missing: give a list of texts"),
        ({"text_2": "a"}, "queries is missing: give a text"),
    ],
)
def test_mistake_is_named_with_field_value_and_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_score(**fields)

    assert str(refusal.value).startswith(message)
