"""Jina's form, which Cohere's first version, vLLM and Voyage share but for names.

Some clients send the same bytes to any of them, so an answer has what each of them reads.

Source: https://jina.ai/reranker, https://docs.cohere.com/v1/reference/rerank,
https://docs.vllm.ai/en/latest/models/pooling_models/scoring.html,
https://docs.voyageai.com/reference/reranker-api.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from rerank_server.dialects.body import About, Result
from rerank_server.dialects.cohere import CohereAnswer, CohereRequest
from rerank_server.ranking import Scored


class RerankAnswer(CohereAnswer):
    """Results in order, twice: some clients read `results`, others `data`."""

    object: str
    data: list[Result]


class RerankRequest(CohereRequest):
    """One query, its documents, and what the answer should hold."""

    title = "Jina, Cohere v1, vLLM, Voyage"
    version: ClassVar = "1"
    examples: ClassVar = {
        "smallest": {
            "query": "What is the capital of France?",
            "documents": ["Berlin is a city in Germany.", "Paris is the capital of France."],
        },
        "all fields": {
            "model": "any name",
            "query": "What is the capital of France?",
            "documents": ["Berlin is a city in Germany.", {"text": "Paris is the capital."}],
            "top_n": 1,
            "return_documents": False,
            "instruction": "Given a question, retrieve passages that answer it",
            "max_tokens_per_doc": 512,
            "truncate": True,
            "raw_scores": False,
        },
        "Cohere v1, with fields": {
            "query": "capital of France",
            "documents": [
                {"title": "Berlin", "body": "A city in Germany."},
                {"title": "Paris", "body": "The capital of France."},
            ],
            "rank_fields": ["title", "body"],
        },
        "Voyage": {
            "query": "capital of France",
            "documents": ["Berlin is a city.", "Paris is the capital of France."],
            "top_k": 1,
            "truncation": True,
        },
    }

    return_documents: Annotated[
        bool, Field(description="true or false, or leave it out for true")
    ] = True

    def answer(self, scored: Sequence[Scored], about: About) -> RerankAnswer:
        """Return what any client of the form reads."""
        answer = super().answer(scored, about)
        return {**answer, "object": "rerank", "data": answer["results"]}
