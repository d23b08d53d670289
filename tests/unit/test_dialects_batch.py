import json
from typing import Any

import pytest

from rerank_server.dialects import About, Body, read
from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranking, Scored

ABOUT = About("rerank-1", "m", 0)


def read_batch(**fields: Any) -> Body:
    body = {"queries": ["q", "r"], "documents_list": [["a", "b"], ["c"]]} | fields
    return read("/v1/rerank", json.dumps(body).encode())


def test_each_query_is_a_ranking_of_its_own() -> None:
    assert read_batch().rankings() == [
        Ranking("q", ["a", "b"], place="documents_list[0][{}]"),
        Ranking("r", ["c"], place="documents_list[1][{}]"),
    ]


@pytest.mark.parametrize(
    ("given", "meant"),
    [("i", ["i", "i"]), (["i", "j"], ["i", "j"]), ([None, "j"], [None, "j"])],
)
def test_instruction_is_for_all_or_one_for_each(given: object, meant: list[str | None]) -> None:
    rankings = read_batch(custom_instruction=given).rankings()

    assert [ranking.instruction for ranking in rankings] == meant


def test_answer_has_one_list_per_query_in_their_order() -> None:
    scored = [Scored([0.0, 2.0], tokens=5, cut=[0]), Scored([0.0], tokens=4)]

    body = read_batch().answer(scored, ABOUT)

    assert body == {
        "id": "rerank-1",
        "model": "m",
        "usage": {"prompt_tokens": 9, "total_tokens": 9, "truncated_documents": 1},
        "results": [
            [
                {
                    "index": 1,
                    "relevance_score": pytest.approx(0.8808, abs=1e-4),
                    "document": {"text": "b"},
                },
                {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}},
            ],
            [{"index": 0, "relevance_score": 0.5, "document": {"text": "c"}}],
        ],
    }


@pytest.mark.parametrize(
    ("top_n", "counts"), [(1, [1, 1]), ([1, 2], [1, 2]), ([None, 1], [2, 1]), (None, [2, 2])]
)
def test_top_n_is_for_all_or_one_for_each(top_n: object, counts: list[int]) -> None:
    request = read_batch(documents_list=[["a", "b"], ["c", "d"]], top_n=top_n)

    body = request.answer([Scored([0.0, 0.0]), Scored([0.0, 0.0])], ABOUT)

    assert [len(results) for results in body["results"]] == counts


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (False, [False, False]),
        ("false", [False, False]),
        ([True, False], [True, False]),
        ([None, False], [True, False]),
    ],
)
def test_documents_are_for_all_or_one_for_each(given: object, meant: list[bool]) -> None:
    body = read_batch(return_documents=given).answer([Scored([0.0, 0.0]), Scored([0.0])], ABOUT)

    assert ["document" in results[0] for results in body["results"]] == meant


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queries": None}, "queries is missing: give a list of texts"),
        ({"queries": "q"}, 'queries is "q": give a list of texts'),
        ({"queries": ["q", ""]}, "queries[1] is empty: give"),
        ({"documents_list": [["a"]]}, "documents_list has 1 entries and queries has 2: give"),
        ({"documents_list": [["a"], []]}, "documents_list[1] is an empty list: give"),
        ({"documents_list": [["a"], ["b", ["c"]]]}, "documents_list[1][1] is a list: give"),
        ({"documents_list": [["a"], 5]}, "documents_list[1] is 5: give"),
        ({"top_n": 0}, "top_n is 0: give a whole number of 1 or more, or a list"),
        ({"top_n": True}, "top_n is true: give"),
        ({"top_n": [1, 0]}, "top_n[1] is 0: give"),
        ({"top_n": [1]}, "top_n has 1 entries and queries has 2: give one entry for each query"),
        ({"return_documents": [True]}, "return_documents has 1 entries and"),
        ({"instruction": ["a", 5]}, "instruction[1] is 5: give"),
        ({"instruction": []}, "instruction has 0 entries and"),
    ],
)
def test_mistake_is_named_with_field_value_and_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_batch(**fields)

    assert str(refusal.value).startswith(message)
