"""Jina's form, `/v1/rerank` and `/rerank`; most clients and vLLM itself speak it.

Source: https://jina.ai/reranker, and the clients in use: some read `results`, others `data`.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, StringConstraints

from rerank_server.dialects import Body
from rerank_server.ranking import Ranked


def _text_of(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and "text" in value else value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


Text = Annotated[str, BeforeValidator(_text_of)]


class RerankRequest(Body):
    """What a caller asks for. A model name is accepted and ignored: there is one model."""

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


def answer(
    request: RerankRequest,
    ranking: Sequence[Ranked],
    *,
    request_id: str,
    model: str,
    tokens: int,
    truncated: int,
) -> dict[str, Any]:
    """Return the body of the answer; `ranking` is in its order already.

    `document` is an object, and absent when not asked for: clients stumble over a bare text
    and over null.
    """
    results = []
    for ranked in ranking:
        result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
        if request.return_documents:
            result["document"] = {"text": request.documents[ranked.index]}
        results.append(result)
    return {
        "id": request_id,
        "object": "rerank",
        "model": model,
        "usage": {
            "prompt_tokens": tokens,
            "total_tokens": tokens,
            "truncated_documents": truncated,
        },
        "results": results,
        "data": results,
    }
