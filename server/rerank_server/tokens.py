"""The text of a query-document pair -> token ids, cut to fit."""

import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from tokenizers import Tokenizer

from rerank_server.errors import BadRequest, ModelUnusable
from rerank_server.families import Family


class Prompt(NamedTuple):
    """The token ids of one pair, ready for an engine."""

    ids: list[int]
    # Tokens from here on are of type 1; None: the model has one type.
    second_type_at: int | None = None


class Question(NamedTuple):
    """The part of a prompt that all documents of a request share."""

    ids: list[int]
    # Tokens left for a document.
    room: int


class Pairs(NamedTuple):
    """One prompt per document, in their order, and the places of those that had to be cut."""

    prompts: list[Prompt]
    cut: list[int]


class _Frame(NamedTuple):
    """Token ids before the query, between query and document, and after the document."""

    head: list[int]
    middle: list[int]
    tail: list[int]


class PairTokenizer:
    """Writes pairs as a family wants them.

    Only the frame may hold special tokens: the caller's text is tokenised as if there were none,
    so no document can end its turn and start another.
    """

    def __init__(
        self,
        tokenizer_json: str,
        family: Family,
        max_model_len: int,
        instruction: str | None,
        *,
        token_types: bool = False,
    ) -> None:
        """`tokenizer_json` is the text of the model's tokenizer.json.

        `instruction` is for requests that bring none; None takes the family's own. `token_types`
        says that the model has two.

        Raises:
            ModelUnusable: it cannot join a pair as the family wants it, or `instruction` is set
                for a model that takes none.
        """
        self._family = family
        self.max_model_len = max_model_len
        self._token_types = token_types
        if instruction and not family.takes_instruction:
            raise ModelUnusable(
                f"RERANK_INSTRUCTION is set, and a model of the family {family.name} takes none: "
                "unset it"
            )
        self._instruction = instruction or family.instruction
        self._special = _tokenizer(tokenizer_json)
        self._text = _tokenizer(_without_special_tokens(tokenizer_json, family))
        self._frame = (
            _own_frame(self._special)
            if family.joined_by_tokenizer
            else _Frame(*(self._ids(part) for part in _frame_texts(family)))
        )

    @property
    def family(self) -> str:
        """The name of the family that the pairs are written for."""
        return self._family.name

    def question(self, query: str, instruction: str | None) -> Question:
        """Tokenise the part up to the document; `instruction=None` takes the service's own.

        Raises:
            BadRequest: query and instruction leave no room for a document, or the model takes no
                instruction.
        """
        family = self._family
        if instruction and not family.takes_instruction:
            raise BadRequest("instruction is set, and this model takes none: leave it out")
        instruction = instruction or self._instruction
        text = family.question if instruction else family.plain_question
        text = text.format(instruction=instruction, query=query)
        ids = self._frame.head + self._text_ids([text])[0] + self._frame.middle
        # A prompt as long as max_model_len has hung vLLM's scheduler: one token less.
        room = self.max_model_len - 1 - len(ids) - len(self._frame.tail)
        if room < 1:
            taken = len(ids) + len(self._frame.tail)
            raise BadRequest(
                f"query and instruction take {taken} tokens with the template, which leaves no "
                f"room for a document below the limit of {self.max_model_len} tokens for a pair: "
                "shorten the query, or raise RERANK_MAX_MODEL_LEN"
            )
        return Question(ids, room)

    def pairs(self, question: Question, documents: Sequence[str]) -> Pairs:
        """Tokenise each document on its own and write the prompts.

        Only document tokens are cut: a pair without its tail asks the model nothing.
        """
        bodies = self._text_ids([self._family.document.format(document=text) for text in documents])
        head, room = question
        tail = self._frame.tail
        second_type_at = len(head) if self._token_types else None
        return Pairs(
            [Prompt(head + body[:room] + tail, second_type_at) for body in bodies],
            [index for index, body in enumerate(bodies) if len(body) > room],
        )

    def token_id(self, word: str) -> int | None:
        """Return the id of a word that is one token of the vocabulary, else None."""
        id: int | None = self._special.token_to_id(word)
        return id

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._special.encode(text, add_special_tokens=False).ids
        return ids

    def _text_ids(self, texts: list[str]) -> list[list[int]]:
        encodings = self._text.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]


def _frame_texts(family: Family) -> tuple[str, str, str]:
    return family.system, family.between, family.suffix


def _tokenizer(tokenizer_json: str) -> Tokenizer:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    # Some files were saved with those of their training.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _own_frame(tokenizer: Tokenizer) -> _Frame:
    """Find out what the tokenizer's post-processor puts around two texts."""
    pair = tokenizer.encode("a", "b")
    query, document = (
        [place for place, text in enumerate(pair.sequence_ids) if text == which] for which in (0, 1)
    )
    if not query or not document or query[-1] + 1 == document[0]:
        raise ModelUnusable(
            "tokenizer.json puts nothing between two texts: take the file of a cross-encoder, "
            "whose post_processor says how to join a query and a document"
        )
    ids = pair.ids
    return _Frame(ids[: query[0]], ids[query[-1] + 1 : document[0]], ids[document[-1] + 1 :])


def _without_special_tokens(tokenizer_json: str, family: Family) -> str:
    """Give the tokens that no text may become names that no text can guess.

    The library's own switch (`encode_special_tokens`) would not do: a Unigram vocabulary holds
    `</s>` and the like as ordinary pieces, and in Qwen3 `<think>`, part of the template, is an
    added token that is not special. They are renamed rather than dropped because the ids of
    added tokens follow from their number.
    """
    content: dict[str, Any] = json.loads(tokenizer_json)
    frame = " ".join(_frame_texts(family))
    added = content.get("added_tokens") or []
    names = {
        token["content"]: f"{secrets.token_hex()} {token['id']}"
        for token in added
        if token["special"] or (token["content"] in frame and token["content"].strip())
    }
    for token in added:
        token["content"] = names.get(token["content"], token["content"])
    model = content["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): id for piece, id in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if isinstance(model.get("unk_token"), str):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    # It names special tokens, and is for pairs that we join ourselves.
    content["post_processor"] = None
    return json.dumps(content)
