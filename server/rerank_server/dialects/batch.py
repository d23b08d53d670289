"""Several queries at once, each with documents of its own; a form of this server alone."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import Discriminator, Field, Tag, model_validator
from typing_extensions import TypedDict

from rerank_server.dialects.body import (
    TEXTS,
    About,
    InstructionNames,
    Limited,
    Query,
    Result,
    Texts,
    TopN,
    Usage,
    results,
    usage,
)
from rerank_server.ranking import Ranking, Scored

T = TypeVar("T")


def _one_or_each(value: Any) -> str:
    return "each" if isinstance(value, list) else "one"


# A value for all queries, or a list with one for each; null in it means not given.
PerQuery = Annotated[
    Annotated[T, Tag("one")] | Annotated[list[T | None], Field(fail_fast=True), Tag("each")],
    Discriminator(_one_or_each),
]


class BatchAnswer(TypedDict):
    """One list of results per query, in the order of the queries."""

    id: str
    model: str
    usage: Usage
    results: list[list[Result]]


class BatchRequest(Limited):
    """Queries, a list of documents for each, and what the answer should hold."""

    marks = frozenset({"documents_list"})
    title = "Batch"
    examples: ClassVar[dict[str, Any]] = {
        "batch": {
            "queries": ["What is the capital of France?", "What is bread made of?"],
            "documents_list": [
                ["Berlin is a city in Germany.", "Paris is the capital of France."],
                ["Flour and water."],
            ],
        },
        "batch, with a value for all or one for each": {
            "queries": ["What is the capital of France?", "What is bread made of?"],
            "documents_list": [
                ["Berlin is a city in Germany.", "Paris is the capital of France."],
                ["The moon.", "Flour and water."],
            ],
            "top_n": [2, 1],
            "return_documents": False,
            "instruction": ["Given a question, retrieve passages that answer it", None],
        },
    }

    queries: Annotated[
        list[Query],
        Field(min_length=1, fail_fast=True, description="a list of texts, at least one"),
    ]
    documents_list: Annotated[
        list[Texts],
        Field(fail_fast=True, description=f"a list that has for each query {TEXTS}"),
    ]
    top_n: Annotated[
        PerQuery[TopN] | None,
        Field(
            description="a whole number of 1 or more, or a list with one for each query, or leave "
            "it out for all documents"
        ),
    ] = None
    return_documents: Annotated[
        PerQuery[bool],
        Field(
            description="true or false, or a list with one for each query, or leave it out for true"
        ),
    ] = True
    instruction: Annotated[
        PerQuery[str] | None,
        Field(
            validation_alias=InstructionNames,
            description="a text, or a list with one for each query, or leave it out for the "
            "service's own instruction",
        ),
    ] = None

    @model_validator(mode="after")
    def _has_one_of_each_per_query(self) -> Self:
        for field in ("documents_list", "top_n", "return_documents", "instruction"):
            value = getattr(self, field)
            if isinstance(value, list) and len(value) != len(self.queries):
                raise ValueError(
                    f"{field} has {len(value)} entries and queries has {len(self.queries)}: give "
                    "one entry for each query"
                )
        return self

    def rankings(self) -> list[Ranking]:
        """Return one ranking per query."""
        instructions = self._each(self.instruction)
        return [
            Ranking(
                query,
                documents,
                instructions[index],
                self.truncate,
                self.max_document_tokens,
                f"documents_list[{index}][{{}}]",
            )
            for index, (query, documents) in enumerate(
                zip(self.queries, self.documents_list, strict=True)
            )
        ]

    def answer(self, scored: Sequence[Scored], about: About) -> BatchAnswer:
        """Return one list of results per query, in their order."""
        top_ns = self._each(self.top_n)
        with_documents = self._each(self.return_documents)
        return {
            "id": about.request_id,
            "model": about.model,
            "usage": usage(scored),
            "results": [
                results(
                    one,
                    top_ns[index],
                    self.raw,
                    None if with_documents[index] is False else self.documents_list[index],
                )
                for index, one in enumerate(scored)
            ],
        }

    def _each(self, value: T | list[T | None] | None) -> Sequence[T | None]:
        return value if isinstance(value, list) else [value] * len(self.queries)
