"""Makes everything training and evaluation need out of package descriptions and patterns.

    python models/prepare.py [--out DIR] [--short]

Writes DIR/tokenizer.json, DIR/arrays.npz for training and, last, DIR/evaluation.json. For
training, text becomes *pieces*: what the pre-tokeniser cuts it into, each a fixed run of token
ids. So words can be exchanged without tokenising anew.
"""

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from corpus import Package, cache_directory, fetch_packages
from everyday import PATTERNS, Everyday
from heldout import evaluation, split
from instructions import facets, phrases, read_instructions
from neighbours import best_matches
from pieces import Pieces, ragged, token_tables
from rerank_server.families import QWEN3
from tokenizer import build_tokenizer
from words import is_capitalised, word_of, word_tables

SEED = 20261122
VOCABULARY = 6144
NEIGHBOURS = 100
EVERYDAY_GROUPS = 60_000
SHORT_EVERY = 12


def prepare(packages: Sequence[Package], out: Path, everyday_groups: int) -> None:
    """Write tokenizer, arrays and evaluation to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(
        [text for package in packages for text in (package.synopsis, package.description)]
        + [PATTERNS.read_text(encoding="utf-8")] * 40,
        VOCABULARY,
    )
    tokenizer.save(str(out / "tokenizer.json"))
    arrays = make_arrays(packages, tokenizer, everyday_groups)
    np.savez_compressed(out / "arrays.npz", allow_pickle=False, **arrays)
    questions = evaluation(packages, arrays["split"], arrays["neighbours"], random.Random(SEED))
    text = json.dumps(questions, ensure_ascii=False)
    (out / "evaluation.json").write_text(text, encoding="utf-8")


def make_arrays(
    packages: Sequence[Package], tokenizer: Tokenizer, everyday_groups: int
) -> dict[str, NDArray[Any]]:
    """Return what batches.Data reads: all texts as pieces, and tables about packages and pieces."""
    chance = random.Random(SEED)
    pieces = Pieces(tokenizer)
    # Pieces are numbered as they are met, so this order is part of the result.
    documents = [pieces.cut(package.description) for package in packages]
    synopses = [pieces.cut(package.synopsis) for package in packages]
    names = [pieces.cut(package.name) for package in packages]
    print(f"{len(packages)} packages, {len(pieces.numbers)} pieces", flush=True)
    capitalised = {word_of(piece) for piece in pieces.numbers if is_capitalised(piece)}
    patterns = Everyday(chance, sorted(word for word in capitalised if 4 <= len(word) <= 10))
    everyday_rows = [
        pieces.cut(text)
        for instruction, query, texts in (patterns.group() for _ in range(everyday_groups))
        for text in (instruction or QWEN3.instruction, query, *texts)
    ]
    wanted = read_instructions()
    asked = [(facet, pieces.cut(text)) for facet, text in phrases(wanted)]
    return {
        **ragged(documents, "documents"),
        **ragged(synopses, "synopses"),
        **ragged(names, "names"),
        **ragged(everyday_rows, "everyday"),
        **ragged([phrase for _, phrase in asked], "phrases"),
        **ragged([pieces.cut(QWEN3.instruction)], "default"),
        **ragged([pieces.cut(text) for text in wanted["generic"]], "generic"),
        **ragged([pieces.cut(text) for text in wanted["asking"]], "asking"),
        "phrase_facet": np.array([facet for facet, _ in asked], np.int32),
        "facets": facets(packages, wanted),
        "split": split(packages),
        "neighbours": best_matches(packages, min(NEIGHBOURS, len(packages))),
        **word_tables(pieces, documents, chance),
        **token_tables(pieces, tokenizer),
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
