import json
from typing import Any

import pytest

from rerank_server.dialects import parse
from rerank_server.dialects.jina import RerankRequest, answer
from rerank_server.errors import BadRequest
from rerank_server.ranking import Ranked


def read(**fields: Any) -> RerankRequest:
    return parse(
        RerankRequest, json.dumps({"query": "q", "documents": ["a", "b"]} | fields).encode()
    )


def test_query_and_documents_are_enough() -> None:
    request = read()

    assert request.documents == ["a", "b"]
    assert request.top_n is None
    assert request.return_documents is True
    assert request.instruction is None


def test_null_means_not_given() -> None:
    assert read(top_n=None, return_documents=None, instruction=None, model=None) == read()


def test_unknown_fields_are_ignored() -> None:
    assert read(max_tokens_per_doc=4096, kwargs="{}", model="m___VLLM") == read()


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


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"q"', b"\xff\xfe", b'{"query":"\\ud800"}'])
def test_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="not a JSON object"):
        parse(RerankRequest, body)


def test_body_that_is_no_json_is_told_where_it_fails() -> None:
    with pytest.raises(BadRequest, match=r"not a JSON object \(.* at line 1 column 2\d\)"):
        parse(RerankRequest, b'{"query":"secret \\ud800 "}')


def test_answer_has_what_each_client_reads() -> None:
    body = answer(
        read(),
        [Ranked(1, 0.9), Ranked(0, 0.1)],
        request_id="rerank-1",
        model="m",
        tokens=31,
        truncated=0,
    )

    results = [
        {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.1, "document": {"text": "a"}},
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
    body = answer(
        read(return_documents=False),
        [Ranked(0, 0.1)],
        request_id="r",
        model="m",
        tokens=1,
        truncated=0,
    )

    assert body["results"] == [{"index": 0, "relevance_score": 0.1}]
