"""The text of a query-document pair -> token ids, cut to fit."""

import json
from collections.abc import Sequence
from typing import NamedTuple

from tokenizers import Tokenizer

from rerank_server.errors import BadRequest
from rerank_server.families import Family


class Prompt(NamedTuple):
    """The token ids of one pair, ready for an engine."""

    ids: list[int]


class Question(NamedTuple):
    """The part of a prompt that all documents of a request share."""

    ids: list[int]
    # Tokens left for a document.
    room: int


class Pairs(NamedTuple):
    """One prompt per document, in their order, and the places of those that had to be cut."""

    prompts: list[Prompt]
    cut: list[int]


class PairTokenizer:
    """Writes pairs in a family's template.

    Only the template's own text may become special tokens: the caller's text is tokenised as
    if there were none, so no document can end its turn and start another.
    """

    def __init__(
        self, tokenizer_json: str, family: Family, max_model_len: int, instruction: str | None
    ) -> None:
        """`tokenizer_json` is the text of the model's tokenizer.json.

        `instruction` is for requests that bring none; None takes the family's own.
        """
        template = Tokenizer.from_str(tokenizer_json)
        self._text = Tokenizer.from_str(_without_added_tokens(tokenizer_json))
        self._text.no_truncation()
        self._text.no_padding()
        self._family = family
        self.max_model_len = max_model_len
        self._instruction = instruction or family.instruction
        self._system: list[int] = template.encode(family.system, add_special_tokens=False).ids
        self._suffix: list[int] = template.encode(family.suffix, add_special_tokens=False).ids

    def question(self, query: str, instruction: str | None) -> Question:
        """Tokenise the part up to the document; `instruction=None` takes the service's own.

        Raises:
            BadRequest: query and instruction leave no room for a document.
        """
        text = self._family.question.format(
            instruction=instruction or self._instruction, query=query
        )
        ids = self._system + self._encode([text])[0]
        # A prompt as long as max_model_len has hung vLLM's scheduler: one token less.
        room = self.max_model_len - 1 - len(ids) - len(self._suffix)
        if room < 1:
            taken = len(ids) + len(self._suffix)
            raise BadRequest(
                f"query and instruction take {taken} tokens with the template, which leaves no "
                f"room for a document below the limit of {self.max_model_len} tokens for a pair: "
                "shorten the query, or raise RERANK_MAX_MODEL_LEN"
            )
        return Question(ids, room)

    def pairs(self, question: Question, documents: Sequence[str]) -> Pairs:
        """Tokenise each document on its own and write the prompts.

        The parts meet where the tokeniser splits anyway, so the ids are those of the whole text.
        Only document tokens are cut: a pair without its suffix asks the model nothing.
        """
        bodies = self._encode([self._family.document.format(document=text) for text in documents])
        return Pairs(
            [Prompt(question.ids + body[: question.room] + self._suffix) for body in bodies],
            [index for index, body in enumerate(bodies) if len(body) > question.room],
        )

    def is_token(self, word: str) -> bool:
        """Return whether `word` is one token of the vocabulary."""
        return self._text.token_to_id(word) is not None

    def _encode(self, texts: list[str]) -> list[list[int]]:
        encodings = self._text.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _without_added_tokens(tokenizer_json: str) -> str:
    # `encode_special_tokens` would not do: it leaves alone added tokens that are not special,
    # and in Qwen3 `<think>` and `</think>`, which are part of the template, are such.
    return json.dumps({**json.loads(tokenizer_json), "added_tokens": []})
