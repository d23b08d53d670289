"""The form of Hugging Face's Text Embeddings Inference, told by its `texts`.

Source: https://huggingface.github.io/text-embeddings-inference.
"""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from rerank_server.dialects.body import (
    TEXTS,
    TOP_N,
    About,
    Body,
    Instruction,
    Query,
    Texts,
    TopN,
)
from rerank_server.ranking import Ranking, Scored, rank


class TeiResult(TypedDict):
    """One text in the order of relevance; `index` is its place in the request."""

    index: int
    score: float
    text: NotRequired[str]


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class TeiRequest(Body):
    """One query and its texts."""

    marks = frozenset({"texts"})
    title = "Text Embeddings Inference"
    examples: ClassVar[dict[str, Any]] = {
        "TEI": {
            "query": "What is the capital of France?",
            "texts": ["Berlin is a city in Germany.", "Paris is the capital of France."],
        },
        "TEI, all fields": {
            "query": "What is the capital of France?",
            "texts": ["Berlin is a city in Germany.", "Paris is the capital of France."],
            "raw_scores": True,
            "return_text": True,
            "truncate": True,
            "truncation_direction": "Right",
            "top_n": 1,
            "instruction": "Given a question, retrieve passages that answer it",
        },
    }

    query: Annotated[Query, Field(description="the text to rank the others by")]
    texts: Annotated[Texts, Field(description=TEXTS)]
    top_n: Annotated[TopN | None, Field(description=TOP_N)] = None
    return_text: Annotated[bool, Field(description="true or false, or leave it out for false")] = (
        False
    )
    truncation_direction: Annotated[
        Literal["left", "right"],
        BeforeValidator(_lower, json_schema_input_type=Literal["Left", "Right", "left", "right"]),
        Field(
            description='"right" to have texts cut at their end, or leave it out; "left" has '
            "those refused that are too long"
        ),
    ] = "right"
    instruction: Instruction = None

    def rankings(self) -> list[Ranking]:
        """Return the one ranking of the request.

        Texts are cut at their end, so who wants them cut at their beginning is told.
        """
        truncate = self.truncate and self.truncation_direction == "right"
        return [Ranking(self.query, self.texts, self.instruction, truncate, place="texts[{}]")]

    def answer(self, scored: Sequence[Scored], about: About) -> list[TeiResult]:
        """Return the bare list of results."""
        [one] = scored
        found: list[TeiResult] = []
        for ranked in rank(one, self.top_n, self.raw_scores):
            result: TeiResult = {"index": ranked.index, "score": ranked.score}
            if self.return_text:
                result["text"] = self.texts[ranked.index]
            found.append(result)
        return found
