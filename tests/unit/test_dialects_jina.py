import json
from typing import Any

import pytest

from rerank_server.dialects import About, read
from rerank_server.dialects.jina import RerankRequest
from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranking, Scored


def read_jina(**fields: Any) -> RerankRequest:
    body = {"query": "q", "documents": ["a", "b"]} | fields
    request = read("/v1/rerank", json.dumps(body).encode())
    assert isinstance(request, RerankRequest)
    return request


def test_query_and_documents_are_enough() -> None:
    request = read_jina()

    assert request.rankings() == [Ranking("q", ["a", "b"])]
    assert request.top_n is None
    assert request.return_documents is True


def test_null_means_not_given() -> None:
    given = read_jina(
        model=None,
        top_n=None,
        top_k=None,
        return_documents=None,
        rank_fields=None,
        max_tokens_per_doc=None,
        instruction=None,
        truncate=None,
        raw_scores=None,
        queries=None,
        documents_list=None,
        texts=None,
    )

    assert given == read_jina()


def test_unknown_fields_are_ignored() -> None:
    assert read_jina(max_chunks_per_doc=10, kwargs="{}", priority=0, user={"a": []}) == read_jina()


@pytest.mark.parametrize(
    ("documents", "texts"),
    [
        ("a", ["a"]),
        ({"text": "a"}, ["a"]),
        (["a", {"text": "b", "id": 7}], ["a", "b"]),
        ([{"content": "a"}, {"text": None, "content": "b"}], ["a", "b"]),
        ([{"text": "a", "content": "b"}], ["a"]),
        (["", {"text": ""}, " "], ["", "", " "]),
    ],
)
def test_documents_are_texts_or_objects(documents: object, texts: list[str]) -> None:
    assert read_jina(documents=documents).documents == texts


def test_documents_are_ranked_by_the_fields_asked_for() -> None:
    documents = [
        {"title": "Bread", "body": "Flour", "year": 1900},
        {"year": 2000, "title": None},
        {"text": "no such field"},
        "a text",
    ]

    request = read_jina(documents=documents, rank_fields=["year", "title"])

    assert request.documents == ["1900\nBread", "2000", "no such field", "a text"]


@pytest.mark.parametrize("field", ["instruction", "instruct", "custom_instruction"])
def test_instruction_has_three_names(field: str) -> None:
    assert read_jina(**{field: "Find laws"}).rankings()[0].instruction == "Find laws"


@pytest.mark.parametrize("field", ["top_n", "top_k"])
def test_number_of_results_has_two_names(field: str) -> None:
    assert read_jina(**{field: 1}).top_n == 1


@pytest.mark.parametrize("field", ["truncate", "truncation"])
def test_cutting_can_be_refused_under_two_names(field: str) -> None:
    assert read_jina(**{field: False}).rankings()[0].truncate is False


@pytest.mark.parametrize(("value", "limit"), [(512, 512), (10**9, 10**9), (0, None), (-1, None)])
def test_limit_of_document_tokens_is_taken_over(value: int, limit: int | None) -> None:
    assert read_jina(max_tokens_per_doc=value).rankings()[0].max_document_tokens == limit


@pytest.mark.parametrize(("value", "meant"), [("true", True), ("false", False), (False, False)])
def test_return_documents_may_be_text(value: object, meant: bool) -> None:
    assert read_jina(return_documents=value).return_documents is meant


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"top_n": 0}, "top_n is 0: give a whole number of 1 or more, or leave it out"),
        ({"top_n": -3}, "top_n is -3: give"),
        ({"top_n": True}, "top_n is true: give"),
        ({"top_n": "5"}, 'top_n is "5": give'),
        ({"top_n": 2.5}, "top_n is 2.5: give"),
        ({"top_k": 0}, "top_k is 0: give a whole number of 1 or more"),
        ({"documents": []}, "documents is an empty list: give a list of texts"),
        ({"documents": 7}, "documents is 7: give a list of texts"),
        ({"documents": ["a", None]}, "documents[1] is null: give a list of texts"),
        ({"documents": ["a", ["b"]]}, "documents[1] is a list: give a list of texts"),
        ({"documents": ["a", 5]}, "documents[1] is 5: give a list of texts"),
        ({"documents": ["a", True]}, "documents[1] is true: give a list of texts"),
        ({"documents": ["a", {"title": "b"}]}, "documents[1] is an object: give a list of texts"),
        ({"documents": None}, "documents is missing: give a list of texts"),
        ({"query": ""}, "query is empty: give the text to rank the documents by"),
        ({"query": " \t\n\u3000"}, "query is blank: give the text"),
        ({"query": ["q"]}, "query is a list: give the text"),
        ({"query": None}, "query is missing: give the text"),
        ({"return_documents": "maybe"}, 'return_documents is "maybe": give true or false'),
        ({"instruct": 5}, "instruct is 5: give a text"),
        ({"rank_fields": "title"}, 'rank_fields is "title": give a list of names'),
        ({"model": ["m"]}, "model is a list: give the name of the model"),
    ],
)
def test_mistake_is_named_with_field_value_and_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        read_jina(**fields)

    assert str(refusal.value).startswith(message)


def test_wrong_value_is_cut_to_100_characters_and_not_for_the_log() -> None:
    with pytest.raises(BadRequest) as refusal:
        read_jina(return_documents="x" * 101)

    assert f'"{"x" * 100}…"' in str(refusal.value)
    assert refusal.value.for_log == (
        "return_documents is not what it takes: give true or false, or leave it out for true"
    )


def test_answer_has_what_each_client_reads() -> None:
    body = read_jina().answer([Scored([0.0, 2.0], tokens=31)], About("rerank-1", "m", 0))

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
        "meta": {
            "api_version": {"version": "1"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 31, "output_tokens": 0},
        },
    }


def test_document_is_absent_when_not_asked_for() -> None:
    request = read_jina(return_documents=False, top_n=1)

    body = request.answer([Scored([0.0, -1.0])], About("r", "m", 0))

    assert body["results"] == [{"index": 0, "relevance_score": 0.5}]


def test_top_n_may_be_larger_than_the_number_of_documents() -> None:
    body = read_jina(top_n=10**12).answer([Scored([0.0, -1.0])], About("r", "m", 0))

    assert len(body["results"]) == 2


@pytest.mark.parametrize("field", [{"raw_scores": True}, {"use_activation": False}])
def test_logits_are_given_as_they_are(field: dict[str, bool]) -> None:
    body = read_jina(**field).answer([Scored([-3.5, 2.0])], About("r", "m", 0))

    assert [result["relevance_score"] for result in body["results"]] == [2.0, -3.5]
