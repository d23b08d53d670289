"""Text as numbered pieces: what the pre-tokeniser cuts it into, each a fixed run of token ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rerank_server.families import QWEN3

SPACE, NEWLINE = "Ġ", "Ċ"  # as byte-level tokenisers write them

Ints = NDArray[np.int32]


class Pieces:
    """Numbers the pieces of texts in the order they are met."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.numbers: dict[str, int] = {}

    def number(self, piece: str) -> int:
        """Return the number of `piece`, new if it has not been met."""
        return self.numbers.setdefault(piece, len(self.numbers))

    def cut(self, text: str) -> Ints:
        """Return the pieces of `text` as it stands in a prompt: after a space."""
        cut = self._tokenizer.pre_tokenizer.pre_tokenize_str(" " + text)
        return np.array([self.number(piece) for piece, _ in cut], np.int32)


def ragged(rows: Sequence[Ints], name: str) -> dict[str, Ints]:
    """Lay rows of different lengths end to end."""
    offsets = np.zeros(len(rows) + 1, np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    return {name: np.concatenate(rows), f"{name}_offsets": offsets}


def token_tables(pieces: Pieces, tokenizer: Tokenizer) -> dict[str, NDArray[Any]]:
    """Return the token ids of each piece, and the numbers of pieces with a line break added."""
    # A sign before a line break is one piece with it: `question` has one after the query.
    signs = {
        piece: number for piece, number in pieces.numbers.items()
        if not any(character.isalnum() for character in piece.strip(SPACE + NEWLINE))
        and piece.strip(SPACE + NEWLINE)
    }  # fmt: skip
    before_newline = {
        number: pieces.number(piece + NEWLINE) for piece, number in list(signs.items())
    }
    size = len(pieces.numbers)
    table = np.full(size, -1, np.int32)
    for number, with_newline in before_newline.items():
        table[number] = with_newline
    ids = [
        np.array([token.id for token in tokenizer.model.tokenize(piece)], np.int32)
        for piece in pieces.numbers
    ]
    ends = [piece[-1] in ".!?" or NEWLINE in piece for piece in pieces.numbers]
    prompt = {
        name: np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int32)
        for name, text in {
            "system": QWEN3.system + "<Instruct>:",
            "before_query": "\n<Query>:",
            "before_document": "\n<Document>:",
            "suffix": QWEN3.suffix,
        }.items()
    }
    prompt["answers"] = np.array([tokenizer.token_to_id(word) for word in ("no", "yes")], np.int32)
    # Without the line break, where the piece before it has it.
    bare = tokenizer.encode("<Document>:", add_special_tokens=False).ids
    prompt["before_document_bare"] = np.array(bare, np.int32)
    return {
        **ragged(ids, "ids"),
        **prompt,
        "before_newline": table,
        "ends": np.array(ends),
    }
