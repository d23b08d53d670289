from typing import Any

import pytest

from rerank_server.dialects.body import About, validate
from rerank_server.dialects.jina import RerankRequest
from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranking, Scored


def read(**fields: Any) -> RerankRequest:
    return validate(RerankRequest, {"query": "q", "documents": ["a", "b"]} | fields)


def test_query_and_documents_are_enough() -> None:
    request = read()

    assert request.documents == ["a", "b"]
    assert request.top_n is None
    assert request.return_documents is True
    assert request.instruction is None


def test_null_means_not_given() -> None:
    assert read(top_n=None, return_documents=None, instruction=None, model=None) == read()


def test_unknown_fields_are_ignored() -> None:
    assert read(max_tokens_per_doc=4096, kwargs="{}") == read()


@pytest.mark.parametrize(
    ("documents", "texts"),
    [
        ("a", ["a"]),
        ({"text": "a"}, ["a"]),
        (["a", {"text": "b", "id": 7}], ["a", "b"]),
        ([""], [""]),
    ],
)
def test_documents_are_texts_or_objects(documents: object, texts: list[str]) -> None:
    assert read(documents=documents).documents == texts


@pytest.mark.parametrize("field", ["instruction", "instruct", "custom_instruction"])
def test_instruction_has_three_names(field: str) -> None:
    assert read(**{field: "Find laws"}).instruction == "Find laws"


@pytest.mark.parametrize(("value", "meant"), [("true", True), ("false", False), (False, False)])
def test_return_documents_may_be_text(value: object, meant: bool) -> None:
    assert read(return_documents=value).return_documents is meant


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_n": 0}, "top_n is 0: give a whole number of 1 or more, or leave it out"),
        ({"top_n": -3}, "top_n is -3: give"),
        ({"top_n": True}, "top_n is true: give"),
        ({"top_n": "5"}, 'top_n is "5": give'),
        ({"top_n": 2.5}, "top_n is 2.5: give"),
        ({"documents": []}, "documents is an empty list: give a list of texts"),
        ({"documents": 7}, "documents is 7: give a list of texts"),
        ({"documents": ["a", None]}, "documents[1] is null: give a list of texts"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1] is an object: give a list of texts"),
        ({"documents": None}, "documents is missing: give a list of texts"),
        ({"query": ""}, "query is empty: give the text to rank the documents by"),
        ({"query": ["q"]}, "query is a list: give the text"),
        ({"query": None}, "query is missing: give the text"),
        ({"return_documents": "maybe"}, 'return_documents is "maybe": give true or false'),
        ({"instruct": 5}, "instruct is 5: give a text"),
    ],
)
def test_mistake_is_named_with_field_value_and_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read(**fields)

    assert str(refusal.value).startswith(message)


def test_it_is_one_ranking() -> None:
    assert read(instruction="i").rankings() == [Ranking("q", ["a", "b"], "i")]


def test_answer_has_what_each_client_reads() -> None:
    body = read().answer([Scored([0.0, 2.0], tokens=31)], About("rerank-1", "m", 0))

    results = [
        {"index": 1, "relevance_score": pytest.approx(0.8808, abs=1e-4), "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.5, "document": {"text": "a"}},
    ]
    assert body == {
        "id": "rerank-1",
        "object": "rerank",
        "model": "m",
        "usage": {"prompt_tokens": 31, "total_tokens": 31, "truncated_documents": 0},
        "results": results,
        "data": results,
    }


def test_document_is_absent_when_not_asked_for() -> None:
    request = read(return_documents=False, top_n=1)

    body = request.answer([Scored([0.0, -1.0])], About("r", "m", 0))

    assert body["results"] == [{"index": 0, "relevance_score": 0.5}]
