"""What bodies of every dialect have in common: fields of requests, parts of answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NotRequired

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, StringConstraints

# That of `typing` will not do for pydantic before Python 3.12.
from typing_extensions import TypedDict

from rerank_server.ranking import Ranking, Scored, rank


@dataclass(frozen=True, slots=True)
class About:
    """What an answer says of itself."""

    request_id: str
    model: str
    # Seconds since 1970.
    created: int


class Body(BaseModel):
    """A request body, read tolerantly: unknown fields are ignored, null means not given.

    The description of a field completes the sentence "give ...", for the caller who did not.
    """

    # Fields that only this form has, among those that share its path.
    marks: ClassVar[frozenset[str]] = frozenset()
    # What the form is called, and bodies in it by what they show.
    title: ClassVar[str]
    examples: ClassVar[Mapping[str, Mapping[str, Any]]]

    model: Annotated[
        str | None, Field(description="the name of the model, or leave it out: there is only one")
    ] = None
    truncate: Annotated[
        bool,
        Field(
            validation_alias=AliasChoices("truncate", "truncation"),
            description="false to have documents refused that are too long for the model, or "
            "leave it out to have them cut",
        ),
    ] = True
    raw_scores: Annotated[
        bool,
        Field(description="true for the model's logits, or leave it out for scores from 0 to 1"),
    ] = False

    def rankings(self) -> list[Ranking]:
        """Return what is to be scored, one entry per query."""
        raise NotImplementedError

    def answer(self, scored: Sequence[Scored], about: About) -> Any:
        """Return the body of the answer; `scored` has one entry per ranking, in their order."""
        raise NotImplementedError


class TextObject(TypedDict):
    """A text in an object. `content` is another name for `text`; other keys are ignored."""

    text: str


def _text_of(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found = (value[key] for key in ("text", "content") if value.get(key) is not None)
    return next(found, value)


def listed(value: Any) -> Any:
    """Return a bare text as a list of one."""
    return [value] if isinstance(value, str | dict) else value


Text = Annotated[str, BeforeValidator(_text_of, json_schema_input_type=str | TextObject)]
NotBlank = Annotated[str, StringConstraints(pattern=r"\S")]
Query = Annotated[NotBlank, BeforeValidator(_text_of, json_schema_input_type=NotBlank | TextObject)]
TextList = Annotated[list[Text], Field(min_length=1, fail_fast=True)]
Texts = Annotated[
    TextList, BeforeValidator(listed, json_schema_input_type=TextList | str | TextObject)
]
# To vLLM's own server 0 means all, because that is its default; no known client sends it, and a
# caller who asks for no documents has miscounted.
TopN = Annotated[int, Field(strict=True, ge=1)]

InstructionNames = AliasChoices("instruction", "instruct", "custom_instruction")
Instruction = Annotated[
    str | None,
    Field(
        validation_alias=InstructionNames,
        description="a text, or leave it out for the service's own instruction",
    ),
]

TEXTS = 'a list of texts or {"text": …} objects, at least one'
TOP_N = "a whole number of 1 or more, or leave it out for all documents"


class Limited(Body):
    """A body that can ask for documents to be cut short, and for logits in vLLM's words."""

    max_tokens_per_doc: Annotated[
        int | None,
        Field(
            strict=True,
            description="the number of a document's tokens to read at most, or leave it out for "
            "as many as the model takes; 0 is the same",
        ),
    ] = None
    use_activation: Annotated[
        bool, Field(description="false for the model's logits, or leave it out")
    ] = True

    @property
    def raw(self) -> bool:
        """Whether logits are asked for."""
        return self.raw_scores or not self.use_activation

    @property
    def max_document_tokens(self) -> int | None:
        """As in `Ranking`."""
        limit = self.max_tokens_per_doc
        return limit if limit is not None and limit > 0 else None


class Usage(TypedDict):
    """What a request took, over all its query-document pairs."""

    prompt_tokens: int
    total_tokens: int
    truncated_documents: int


class Document(TypedDict):
    """A document that was ranked."""

    text: str


class Result(TypedDict):
    """One document in the order of relevance; `index` is its place in the request.

    `document` is an object, and absent when not asked for: clients stumble over a bare text and
    over null.
    """

    index: int
    relevance_score: float
    document: NotRequired[Document]


def usage(scored: Sequence[Scored]) -> Usage:
    """Add up what rankings took."""
    tokens = sum(one.tokens for one in scored)
    return {
        "prompt_tokens": tokens,
        "total_tokens": tokens,
        "truncated_documents": sum(len(one.cut) for one in scored),
    }


def results(
    scored: Scored, top_n: int | None, raw: bool, documents: Sequence[str] | None
) -> list[Result]:
    """Return the best `top_n` documents of one query, best first, with their texts if given."""
    found: list[Result] = []
    for ranked in rank(scored, top_n, raw):
        result: Result = {"index": ranked.index, "relevance_score": ranked.score}
        if documents is not None:
            result["document"] = {"text": documents[ranked.index]}
        found.append(result)
    return found
