"""vLLM's `/score`: the score of each pair, in the order of the request.

Source: https://docs.vllm.ai/en/latest/models/pooling_models/scoring.html.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator
from typing_extensions import TypedDict

from rerank_server.dialects.body import (
    TEXTS,
    About,
    Instruction,
    Limited,
    Query,
    TextObject,
    Texts,
    Usage,
    listed,
    usage,
)
from rerank_server.ranking import Ranking, Scored, relevance

QueryList = Annotated[list[Query], Field(min_length=1, fail_fast=True)]


class Score(TypedDict):
    """The score of one pair; `index` is its place in the request."""

    index: int
    object: str
    score: float


class ScoreAnswer(TypedDict):
    """Scores in the order of the request."""

    id: str
    object: str
    created: int
    model: str
    data: list[Score]
    usage: Usage


class ScoreRequest(Limited):
    """One query and many documents, or as many of each."""

    title = "vLLM score"
    examples: ClassVar[dict[str, Any]] = {
        "one query": {
            "queries": "What is the capital of France?",
            "documents": ["Berlin is a city in Germany.", "Paris is the capital of France."],
        },
        "as many queries as documents": {
            "queries": ["What is the capital of France?", "What is bread made of?"],
            "documents": ["Paris is the capital of France.", "Flour and water."],
        },
        "older names": {
            "text_1": "What is the capital of France?",
            "text_2": ["Berlin is a city in Germany.", "Paris is the capital of France."],
            "instruction": "Given a question, retrieve passages that answer it",
            "use_activation": False,
        },
    }

    queries: Annotated[
        QueryList,
        BeforeValidator(listed, json_schema_input_type=QueryList | Query | TextObject),
        Field(
            validation_alias=AliasChoices("queries", "text_1", "query", "data_1"),
            description="a text, or a list of as many texts as there are documents",
        ),
    ]
    documents: Annotated[
        Texts,
        Field(
            validation_alias=AliasChoices("documents", "text_2", "items", "data_2"),
            description=TEXTS,
        ),
    ]
    instruction: Instruction = None

    @model_validator(mode="after")
    def _has_one_query_or_as_many(self) -> Self:
        queries, documents = len(self.queries), len(self.documents)
        if queries not in (1, documents):
            raise ValueError(
                f"there are {queries} queries and {documents} documents: give one query, or as "
                "many as there are documents"
            )
        return self

    def rankings(self) -> list[Ranking]:
        """Return one ranking per query."""
        if len(self.queries) == 1:
            return [self._ranking(self.queries[0], self.documents, "documents[{}]")]
        pairs = zip(self.queries, self.documents, strict=True)
        return [
            self._ranking(query, [document], f"documents[{index}]")
            for index, (query, document) in enumerate(pairs)
        ]

    def answer(self, scored: Sequence[Scored], about: About) -> ScoreAnswer:
        """Return one score per document, in their order."""
        logits = [logit for one in scored for logit in one.logits]
        return {
            "id": about.request_id,
            "object": "list",
            "created": about.created,
            "model": about.model,
            "data": [
                {
                    "index": index,
                    "object": "score",
                    "score": logit if self.raw else relevance(logit),
                }
                for index, logit in enumerate(logits)
            ],
            "usage": usage(scored),
        }

    def _ranking(self, query: str, documents: Sequence[str], place: str) -> Ranking:
        return Ranking(
            query, documents, self.instruction, self.truncate, self.max_document_tokens, place
        )
