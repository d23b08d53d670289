"""Makes everything training and evaluation need out of package descriptions and patterns.

    python models/prepare.py [--out DIR] [--short]

Writes DIR/tokenizer.json, DIR/arrays.npz for training and DIR/evaluation.json. For training, text
becomes *pieces*: what the pre-tokeniser cuts it into, each a fixed run of token ids. So words can
be exchanged without tokenising anew.
"""

import argparse
import json
import random
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models

from corpus import Package, cache_directory, fetch_packages
from rerank_server.families import QWEN3

SEED = 20261122
VOCABULARY = 6144
# Never seen in training, like every other package of the same source.
TEST_SECTIONS = frozenset({"games", "science", "hamradio", "sound", "electronics", "mail"})
VALIDATION_SECTIONS = frozenset({"graphics"})
NEIGHBOURS = 100
REPLACEMENTS = 24_000
EVERYDAY_GROUPS = 60_000
GROUP = 8
SHORT_EVERY = 12
# Of invented words.
ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k kr l m n p pl pr qu r s sh sk st t tr v w z"
VOWELS = "a e i o u ai ea ou y"
TEST_QUERIES = 3000
CANDIDATES = 50
PAIR_INSTRUCTIONS = {
    "doc": "Find documentation",
    "libdevel": "Find development files",
    "python": "Find Python modules",
    "games": "Find games",
    "science": "Find scientific software",
}

# Tokens the template is written with. As in the original, the last two are added tokens but not
# special ones.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED_TOKENS = ("<think>", "</think>")

# The pre-tokeniser of Qwen2 and Qwen3.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPACE, NEWLINE = "Ġ", "Ċ"  # as byte-level tokenisers write them

Ints = NDArray[np.int32]
HERE = Path(__file__).parent


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE in which `yes` and `no` and the template's words are single tokens."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS) - len(ADDED_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Every prompt holds the template: often enough to win its merges, so that it stays short.
    template = re.sub(r"<\|?/?\w+\|?>", "", QWEN3.system + QWEN3.question + QWEN3.suffix)
    tokenizer.train_from_iterator(
        [*texts, *["yes", "no", template, QWEN3.instruction] * 5000], trainer
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED_TOKENS])
    return tokenizer


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


def split(packages: Sequence[Package]) -> NDArray[np.int8]:
    """Return 0 for training, 1 validation, 2 test, 3 kept out: of a source that is held out."""
    held_out = {
        package.source
        for package in packages
        if package.section in TEST_SECTIONS | VALIDATION_SECTIONS
    }
    return np.array(
        [
            2 if package.section in TEST_SECTIONS
            else 1 if package.section in VALIDATION_SECTIONS
            else 3 if package.source in held_out
            else 0
            for package in packages
        ],
        np.int8,
    )  # fmt: skip


def best_matches(packages: Sequence[Package], count: int) -> Ints:
    """Return for each synopsis the descriptions that BM25 puts first, of all packages."""
    stemmer = Stemmer.Stemmer("english")

    def words(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)

    index = bm25s.BM25()
    index.index(words([package.description for package in packages]), show_progress=False)
    queries = words([package.synopsis for package in packages])
    found, _ = index.retrieve(queries, k=count, show_progress=False)
    return np.asarray(found, np.int32)


def word_of(piece: str) -> str:
    """Return the word in a piece, or nothing if it is none that may be exchanged."""
    bare = piece.removeprefix(SPACE)
    return bare if len(bare) > 1 and bare.isascii() and bare.isalpha() else ""


def form_of(piece: str) -> int:
    """Tell how a word is written: 3 after a space, else 0; plus 0 small, 1 Capital, 2 CAPITALS."""
    word = word_of(piece)
    case = 2 if word.isupper() else 1 if word[0].isupper() else 0
    return case + (3 if piece.startswith(SPACE) else 0)


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


class Everyday:
    """Fills the patterns of everyday.toml."""

    def __init__(self, chance: random.Random, known_names: Sequence[str]) -> None:
        patterns = tomllib.loads((HERE / "everyday.toml").read_text(encoding="utf-8"))
        self.relations: list[dict[str, Any]] = patterns["relation"]
        self.styles: list[dict[str, Any]] = patterns["style"]
        self._things: list[str] = patterns["things"].split()
        self._names = known_names
        self._chance = chance

    def group(self) -> tuple[str, str, list[str]]:
        """Return instruction (empty: the default one), query and texts, the right one first."""
        return self._relation() if self._chance.random() < 0.6 else self._style()

    def _relation(self) -> tuple[str, str, list[str]]:
        chance = self._chance
        relation = chance.choice(self.relations)
        kind = relation["subject"]
        subject = self._draw(kind)
        alike = [other for other in self.relations if other["subject"] == kind]
        others = [other for other in alike if other is not relation]
        near = chance.randint(2, 4)
        texts = [self._text(relation["answers"], subject)]
        texts += [
            self._text(other["answers"], subject)
            for other in chance.sample(others, min(near, len(others)))
        ]
        while len(texts) < GROUP:
            source = relation if chance.random() < 0.6 else chance.choice(self.relations)
            texts.append(self._text(source["answers"], self._draw(source["subject"])))
        return "", self._text(relation["questions"], subject, longer=False), texts

    def _style(self) -> tuple[str, str, list[str]]:
        chance = self._chance
        style = chance.choice(self.styles)
        subject = self._draw("thing")
        others = chance.sample([other for other in self.styles if other is not style], GROUP - 1)
        wrong = chance.randint(1, 3)
        texts = [self._text(style["texts"], subject)]
        texts += [self._text(other["texts"], subject) for other in others[wrong:]]
        texts += [self._text(style["texts"], self._draw("thing")) for _ in range(wrong)]
        return chance.choice(style["instructions"]), subject, texts

    def _text(self, patterns: Sequence[str], subject: str, longer: bool = True) -> str:
        def fill(match: re.Match[str]) -> str:
            return subject if match[1] == "subject" else self._draw(match[1])

        text = re.sub(r"\{(\w+)\}", fill, self._chance.choice(patterns))
        if longer and self._chance.random() < 0.25:
            filler = self._chance.choice(self._chance.choice(self.styles)["texts"])
            more = filler.replace("{subject}", "{thing}")
            text += " " + re.sub(r"\{(\w+)\}", fill, more)
        return text[:1].upper() + text[1:]

    def _draw(self, kind: str) -> str:
        chance = self._chance
        if kind == "thing":
            return chance.choice(self._things)
        if kind == "number":
            return str(chance.randint(2, 10 ** chance.randint(1, 5)))
        if kind == "year":
            return str(chance.randint(1400, 2025))
        words = 2 if kind == "person" or chance.random() < 0.15 else 1
        return " ".join(
            chance.choice(self._names)
            if chance.random() < 0.5
            else invent_word(chance).capitalize()
            for _ in range(words)
        )


def facets(packages: Sequence[Package]) -> tuple[list[list[str]], NDArray[np.int8]]:
    """Return the words for each facet, and by package and facet 1 yes, 0 no, -1 not known."""
    wanted = tomllib.loads((HERE / "instructions.toml").read_text(encoding="utf-8"))
    names = list(wanted["sections"].values()) + list(wanted["tags"].values())
    table = np.zeros((len(packages), len(names)), np.int8)
    for row, package in zip(table, packages, strict=True):
        for column, section in enumerate(wanted["sections"]):
            row[column] = package.section == section
        for column, tag in enumerate(wanted["tags"], start=len(wanted["sections"])):
            row[column] = tag in package.tags if package.tags else -1
    return names, table


def prepare(packages: Sequence[Package], out: Path, everyday_groups: int) -> None:
    """Write tokenizer, arrays and packages to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    chance = random.Random(SEED)
    instructions = tomllib.loads((HERE / "instructions.toml").read_text(encoding="utf-8"))
    everyday_text = (HERE / "everyday.toml").read_text(encoding="utf-8")
    tokenizer = build_tokenizer(
        [text for package in packages for text in (package.synopsis, package.description)]
        + [everyday_text] * 40,
        VOCABULARY,
    )
    tokenizer.save(str(out / "tokenizer.json"))
    pieces = Pieces(tokenizer)

    documents = [pieces.cut(package.description) for package in packages]
    synopses = [pieces.cut(package.synopsis) for package in packages]
    names = [pieces.cut(package.name) for package in packages]
    print(f"{len(packages)} packages, {len(pieces.numbers)} pieces", flush=True)

    capitals = Counter(word_of(piece) for piece in pieces.numbers if form_of_is_capital(piece))
    everyday = Everyday(chance, sorted(word for word in capitals if 4 <= len(word) <= 10))
    groups = [everyday.group() for _ in range(everyday_groups)]
    everyday_rows = [
        pieces.cut(text) for instruction, query, texts in groups
        for text in (instruction or QWEN3.instruction, query, *texts)
    ]  # fmt: skip

    facet_names, facet_table = facets(packages)
    patterns: list[str] = instructions["patterns"]
    phrases = [
        (number, pieces.cut(pattern.replace("{}", name)))
        for number, several in enumerate(facet_names)
        for name in several
        for pattern in patterns
    ]
    arrays: dict[str, NDArray[Any]] = {
        **ragged(documents, "documents"),
        **ragged(synopses, "synopses"),
        **ragged(names, "names"),
        **ragged(everyday_rows, "everyday"),
        **ragged([phrase for _, phrase in phrases], "phrases"),
        **ragged([pieces.cut(QWEN3.instruction)], "default"),
        **ragged([pieces.cut(text) for text in instructions["generic"]], "generic"),
        **ragged([pieces.cut(text) for text in instructions["asking"]], "asking"),
        "phrase_facet": np.array([number for number, _ in phrases], np.int32),
        "facets": facet_table,
        "split": split(packages),
        "neighbours": best_matches(packages, min(NEIGHBOURS, len(packages))),
        **word_tables(pieces, documents, chance),
    }
    arrays |= token_tables(pieces, tokenizer)
    np.savez_compressed(out / "arrays.npz", allow_pickle=False, **arrays)
    parts = evaluation(packages, arrays["split"], arrays["neighbours"])
    (out / "evaluation.json").write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")


def evaluation(
    packages: Sequence[Package], parts: NDArray[np.int8], neighbours: Ints
) -> dict[str, Any]:
    """Return the held-out questions as text.

    `queries` have BM25's best as candidates, in its order; a relevant one that is not among them
    takes the last place. `pairs` are two packages of one held-out source with the instruction that
    asks for the first: `other` is the one that asks for the second.
    """
    chance = random.Random(SEED)
    test = chance.sample(range(len(packages)), len(packages))
    test = [number for number in test if parts[number] == 2][:TEST_QUERIES]
    queries = []
    for number in test:
        found = neighbours[number, :CANDIDATES].tolist()
        if number not in found:
            found[-1] = number
        queries.append(
            {"query": packages[number].synopsis, "relevant": number, "candidates": found}
        )
    by_source: dict[str, dict[str, int]] = {}
    for number, package in enumerate(packages):
        if parts[number] >= 2 and package.section in PAIR_INSTRUCTIONS:
            by_source.setdefault(package.source, {})[package.section] = number
    pairs = [
        {
            "query": source,
            "documents": [sections[first], sections[second]],
            "instruction": PAIR_INSTRUCTIONS[first],
            "other": PAIR_INSTRUCTIONS[second],
        }
        for source, sections in by_source.items()
        for first in sections
        for second in sections
        if first < second
    ]
    used = {number for query in queries for number in query["candidates"]}
    used |= {number for pair in pairs for number in pair["documents"]}
    documents = {str(number): packages[number].description for number in sorted(used)}
    return {"queries": queries, "pairs": pairs, "documents": documents}


def form_of_is_capital(piece: str) -> bool:
    """Tell whether the piece is a word with a capital, as names are."""
    return bool(word_of(piece)) and form_of(piece) == 4


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Prepare the data of the small reranker.")
    parser.add_argument("--out", type=Path, default=None, help="directory to write")
    parser.add_argument("--short", action="store_true", help="a small part, to try the code")
    options = parser.parse_args()
    cache = cache_directory()
    packages = fetch_packages(cache)
    out = options.out or cache / ("short" if options.short else "prepared")
    if options.short:
        prepare(packages[::SHORT_EVERY], out, EVERYDAY_GROUPS // SHORT_EVERY)
    else:
        prepare(packages, out, EVERYDAY_GROUPS)


if __name__ == "__main__":
    main()
