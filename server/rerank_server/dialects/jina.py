"""Jina's form, `/v1/rerank` and `/rerank`; most clients and vLLM itself speak it.

Source: https://jina.ai/reranker, and the clients in use: some read `results`, others `data`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints

from rerank_server.dialects.body import About, Body
from rerank_server.ranking import Ranking, Scored, rank


def _text_of(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and "text" in value else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


Text = Annotated[str, BeforeValidator(_text_of)]


class RerankRequest(Body):
    """One query, its documents, and what the answer should hold."""

    query: Annotated[
        Annotated[str, StringConstraints(min_length=1)],
        BeforeValidator(_text_of),
        Field(description="the text to rank the documents by"),
    ]
    documents: Annotated[
        list[Text],
        BeforeValidator(_listed),
        Field(
            min_length=1,
            description='a list of texts or {"text": …} objects, at least one',
        ),
    ]
    top_n: Annotated[
        int | None,
        Field(
            strict=True,
            ge=1,
            description="a whole number of 1 or more, or leave it out for all documents",
        ),
    ] = None
    return_documents: Annotated[
        bool, Field(description="true or false, or leave it out for true")
    ] = True
    instruction: Annotated[
        str | None,
        Field(
            validation_alias=AliasChoices("instruction", "instruct", "custom_instruction"),
            description="a text, or leave it out for the service's own instruction",
        ),
    ] = None

    def rankings(self) -> list[Ranking]:
        """Return the one ranking of the request."""
        return [Ranking(self.query, self.documents, self.instruction)]

    def answer(self, scored: Sequence[Scored], about: About) -> dict[str, Any]:
        """Return results in order, twice: some clients read `results`, others `data`.

        `document` is an object, and absent when not asked for: clients stumble over a bare text
        and over null.
        """
        [one] = scored
        results = []
        for ranked in rank(one, self.top_n):
            result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
            if self.return_documents:
                result["document"] = {"text": self.documents[ranked.index]}
            results.append(result)
        return {
            "id": about.request_id,
            "object": "rerank",
            "model": about.model,
            "usage": {
                "prompt_tokens": one.tokens,
                "total_tokens": one.tokens,
                "truncated_documents": len(one.cut),
            },
            "results": results,
            "data": results,
        }
