"""Which words may be exchanged for which: the same way in a query and all its documents."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import Stemmer
from numpy.typing import NDArray

from pieces import SPACE, Ints, Pieces

REPLACEMENTS = 24_000
# Of invented words.
ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k kr l m n p pl pr qu r s sh sk st t tr v w z"
VOWELS = "a e i o u ai ea ou y"


def word_of(piece: str) -> str:
    """Return the word in a piece, or nothing if it is none that may be exchanged."""
    bare = piece.removeprefix(SPACE)
    return bare if len(bare) > 1 and bare.isascii() and bare.isalpha() else ""


def form_of(piece: str) -> int:
    """Tell how a word is written: 3 after a space, else 0; plus 0 small, 1 Capital, 2 CAPITALS."""
    word = word_of(piece)
    case = 2 if word.isupper() else 1 if word[0].isupper() else 0
    return case + (3 if piece.startswith(SPACE) else 0)


def is_capitalised(piece: str) -> bool:
    """Tell whether the piece is a word with a capital, as names are."""
    return bool(word_of(piece)) and form_of(piece) == 4


def write_as(word: str, form: int) -> str:
    """Return the piece of `word` in that form."""
    case = (word.lower(), word.capitalize(), word.upper())[form % 3]
    return (SPACE if form >= 3 else "") + case


def invent_word(chance: random.Random) -> str:
    """Return a word that looks like one and is none."""
    syllables = chance.choices((1, 2, 3), (2, 5, 3))[0]
    word = "".join(
        chance.choice(ONSETS.split()) + chance.choice(VOWELS.split()) for _ in range(syllables)
    )
    return word + chance.choice(["", "n", "r", "s", "t", "x", "l", "nd", "ck"])


def word_tables(
    pieces: Pieces, documents: Sequence[Ints], chance: random.Random
) -> dict[str, NDArray[Any]]:
    """Return what exchanges words: the stem of each piece, its form, and the words to put there."""
    stemmer = Stemmer.Stemmer("english")
    stems: dict[str, int] = {}
    words = [word_of(piece) for piece in pieces.numbers]
    stem_of = [
        stems.setdefault(stemmer.stemWord(word.lower()), len(stems)) if word else -1
        for word in words
    ]
    by_piece = np.array(stem_of, np.int32)
    frequency = np.zeros(len(stems), np.int32)
    for document in documents:
        found = np.unique(by_piece[document])
        frequency[found[found >= 0]] += 1
    common = sorted({
        word.lower() for word, stem in zip(words, stem_of, strict=True)
        if word and frequency[stem] >= 3
    })  # fmt: skip
    known = chance.sample(common, min(REPLACEMENTS // 2, len(common)))
    invented = sorted({invent_word(chance) for _ in range(REPLACEMENTS // 2)})
    replacements = [
        [pieces.number(write_as(word, form)) for form in range(6)] for word in known + invented
    ]
    missing = len(pieces.numbers) - len(by_piece)
    forms = [form_of(piece) if word_of(piece) else 0 for piece in pieces.numbers]
    return {
        # Pieces met only as replacements are never replaced themselves.
        "stem": np.concatenate([by_piece, np.full(missing, -1, np.int32)]),
        "form": np.array(forms, np.int8),
        "frequency": frequency,
        "replacements": np.array(replacements, np.int32),
    }
