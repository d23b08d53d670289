import json
from typing import Any

import pytest

from rerank_server.dialects import About, Body, read
from rerank_server.ranking import Ranking, Scored

ABOUT = About("rerank-1", "m", 0)


def read_cohere(**fields: Any) -> Body:
    body = {"model": "m", "query": "q", "documents": ["a", {"text": "b"}]} | fields
    return read("/v2/rerank", json.dumps(body).encode())


def test_request_is_one_ranking() -> None:
    request = read_cohere(max_tokens_per_doc=4096, priority=0)

    assert request.rankings() == [Ranking("q", ["a", "b"], max_document_tokens=4096)]


def test_answer_is_the_one_of_the_second_version() -> None:
    body = read_cohere().answer([Scored([0.0, -1.0], tokens=9, cut=[1])], ABOUT)

    assert body == {
        "id": "rerank-1",
        "model": "m",
        "usage": {"prompt_tokens": 9, "total_tokens": 9, "truncated_documents": 1},
        "results": [
            {"index": 0, "relevance_score": 0.5},
            {"index": 1, "relevance_score": pytest.approx(0.2689, abs=1e-4)},
        ],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"search_units": 1},
            "tokens": {"input_tokens": 9, "output_tokens": 0},
        },
    }


def test_documents_are_in_the_answer_on_request() -> None:
    body = read_cohere(return_documents=True, top_n=1).answer([Scored([0.0, 1.0])], ABOUT)

    assert [result["document"] for result in body["results"]] == [{"text": "b"}]


def test_search_units_are_counted_as_cohere_does() -> None:
    request = read_cohere(documents=["d"] * 101)

    body = request.answer([Scored([0.0] * 101)], ABOUT)

    assert body["meta"]["billed_units"] == {"search_units": 2}
