"""Cohere's form in its second version, and what the first and Jina's have in common with it.

Source: https://docs.cohere.com/reference/rerank, https://docs.cohere.com/v1/reference/rerank.
"""

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import AliasChoices, BeforeValidator, Field, ValidationInfo
from typing_extensions import TypedDict

from rerank_server.dialects.body import (
    TEXTS,
    TOP_N,
    About,
    Instruction,
    Limited,
    Query,
    Result,
    TextList,
    TextObject,
    TopN,
    Usage,
    listed,
    results,
    usage,
)
from rerank_server.ranking import Ranking, Scored

# By Cohere's count a query with so many documents is one search.
SEARCH_DOCUMENTS = 100


class ApiVersion(TypedDict):
    """Which version of Cohere's API the answer is one of."""

    version: str


class BilledUnits(TypedDict):
    """What Cohere would charge for."""

    search_units: int


class Tokens(TypedDict):
    """`usage` in Cohere's words; older releases of RAGFlow read them."""

    input_tokens: int
    output_tokens: int


class Meta(TypedDict):
    """What Cohere's clients read."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens


class CohereAnswer(TypedDict):
    """Results in order. `model` and `usage` are for clients of vLLM."""

    id: str
    model: str
    usage: Usage
    results: list[Result]
    meta: Meta


def _documents(value: Any, info: ValidationInfo) -> Any:
    value = listed(value)
    fields = info.data.get("rank_fields")
    if not fields or not isinstance(value, list):
        return value
    return [_chosen(item, fields) if isinstance(item, dict) else item for item in value]


def _chosen(document: dict[str, Any], fields: Sequence[str]) -> Any:
    values = [document[field] for field in fields if document.get(field) is not None]
    if not values:
        return document
    return "\n".join(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in values
    )


class CohereRequest(Limited):
    """One query, its documents, and what the answer should hold."""

    title = "Cohere v2, vLLM"
    version: ClassVar = "2"
    examples: ClassVar = {
        "smallest": {
            "model": "any name",
            "query": "What is the capital of France?",
            "documents": ["Berlin is a city in Germany.", "Paris is the capital of France."],
        },
        "all fields": {
            "model": "any name",
            "query": "What is the capital of France?",
            "documents": ["Berlin is a city in Germany.", {"text": "Paris is the capital."}],
            "top_n": 1,
            "max_tokens_per_doc": 4096,
            "return_documents": True,
            "instruction": "Given a question, retrieve passages that answer it",
        },
    }

    query: Annotated[Query, Field(description="the text to rank the documents by")]
    # Above `documents`, which is read with its help.
    rank_fields: Annotated[
        Sequence[str],
        Field(
            description="a list of names: the keys to rank by, one after the other, of documents "
            "that are objects"
        ),
    ] = ()
    documents: Annotated[
        TextList,
        BeforeValidator(
            _documents,
            json_schema_input_type=Annotated[
                list[str | TextObject | dict[str, Any]], Field(min_length=1)
            ]
            | str
            | TextObject,
        ),
        Field(description=TEXTS),
    ]
    top_n: Annotated[
        TopN | None, Field(validation_alias=AliasChoices("top_n", "top_k"), description=TOP_N)
    ] = None
    return_documents: Annotated[
        bool, Field(description="true or false, or leave it out for false")
    ] = False
    instruction: Instruction = None

    def rankings(self) -> list[Ranking]:
        """Return the one ranking of the request."""
        return [
            Ranking(
                self.query,
                self.documents,
                self.instruction,
                self.truncate,
                self.max_document_tokens,
            )
        ]

    def answer(self, scored: Sequence[Scored], about: About) -> CohereAnswer:
        """Return the results and what they took."""
        [one] = scored
        documents = self.documents if self.return_documents else None
        used = usage(scored)
        return {
            "id": about.request_id,
            "model": about.model,
            "usage": used,
            "results": results(one, self.top_n, self.raw, documents),
            "meta": {
                "api_version": {"version": self.version},
                "billed_units": {"search_units": math.ceil(len(self.documents) / SEARCH_DOCUMENTS)},
                "tokens": {"input_tokens": used["prompt_tokens"], "output_tokens": 0},
            },
        }
