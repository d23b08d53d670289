"""Measures the small reranker on what it was not trained on, and writes what tests compare with.

python models/evaluate.py --data DIR --model DIR [--queries N] [--results FILE]
python models/evaluate.py --model DIR --results FILE --card FILE
python models/evaluate.py --data DIR --model DIR --sample FILE
python models/evaluate.py --model DIR --golden FILE
"""

import argparse
import json
import math
import platform
from pathlib import Path
from typing import Any

import numpy as np

from metrics import figures

SEED = 20261122
SAMPLE_QUERIES = 24
MARK = "<!-- figures: written by models/evaluate.py -->"

# Fixed pairs for golden.json: (query, instruction or None for the default, documents).
GOLDEN: list[tuple[str, str | None, list[str]]] = [
    (
        "What is the capital of France?",
        None,
        [
            "Paris is the capital of France.",
            "Bread is made of flour, water, salt and yeast.",
            "",
            "The moon moves around the earth. " * 4,
        ],
    ),
    (
        "how to keep bread fresh",
        "Find recipes",
        [
            "Keep a loaf in a paper bag: fresh bread stays soft for two days.",
            "Mix flour, water and yeast, let the bread rise and bake it for 40 minutes.",
            "Yesterday the price of bread rose again, the ministry said.",
        ],
    ),
    (
        "graphical mail client",
        "Find documentation",
        [
            "Manual of a graphical mail client. This package contains the documentation.",
            "A graphical program to read and write electronic mail.",
            "Shared library that parses mail headers.",
        ],
    ),
    (
        "L'été à Zürich <|im_end|>",
        None,
        ["Summers in Zürich are warm — 東京は日本の首都です。 🙂", " two  spaces\tand a tab\r\n"],
    ),
    ("restart a stuck pod", None, ["Delete the pod; it is started again.", "A pod of whales."]),
]


def measure(data: Path, model: Path, count: int | None) -> dict[str, Any]:
    """Return the figures of model, BM25 and random order, and of the instructions."""
    import torch
    import transformers

    from reference import Reference

    parts = json.loads((data / "evaluation.json").read_text(encoding="utf-8"))
    documents: dict[str, str] = parts["documents"]
    queries = parts["queries"][:count]
    reference = Reference(model)
    scores = []
    for number, query in enumerate(queries, start=1):
        texts = [documents[str(candidate)] for candidate in query["candidates"]]
        scores.append(reference.logits(query["query"], texts))
        if number % 500 == 0:
            print(f"{number} of {len(queries)} queries", flush=True)
    found = np.array([query["candidates"] for query in queries])
    relevant = [query["relevant"] for query in queries]
    chance = np.random.default_rng(SEED)
    bm25 = np.tile(-np.arange(found.shape[1], dtype=float), (len(found), 1))
    right = 0
    for pair in parts["pairs"]:
        texts = [documents[str(number)] for number in pair["documents"]]
        first, second = reference.logits(pair["query"], texts, pair["instruction"])
        right += first > second
        first, second = reference.logits(pair["query"], texts, pair["other"])
        right += second > first
    return {
        "queries": len(queries),
        "candidates": found.shape[1],
        "ranking": {
            "this model": figures(np.array(scores), found, relevant),
            "BM25": figures(bm25, found, relevant),
            "random order": figures(chance.random(found.shape), found, relevant),
        },
        "instruction_questions": 2 * len(parts["pairs"]),
        "instruction_right": right / max(2 * len(parts["pairs"]), 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """Return the figures as the card shows them."""
    ranking: dict[str, dict[str, float]] = results["ranking"]
    names = list(next(iter(ranking.values())))
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [
        f"| {system} | " + " | ".join(f"{row[name]:.3f}" for name in names) + " |"
        for system, row in ranking.items()
    ]
    lines += [
        "",
        f"{results['queries']} queries, {results['candidates']} candidates each, in 32 bits with "
        f"transformers {results['transformers']} and torch {results['torch']}.",
        "",
        f"Instructions: of {results['instruction_questions']} questions which of two packages of "
        f"one held-out source an instruction asks for, {results['instruction_right']:.1%} are "
        "answered rightly; an order that ignores the instruction gets 50%.",
    ]
    return "\n".join(lines)


def write_card(results: dict[str, Any], card: Path) -> None:
    """Replace what stands between the two marks of the card."""
    text = card.read_text(encoding="utf-8")
    before, _, after = text.split(MARK)
    card.write_text(f"{before}{MARK}\n{table(results)}\n{MARK}{after}", encoding="utf-8")


def write_sample(data: Path, path: Path) -> None:
    """Write the first of the held-out queries with their candidates, for the test suite."""
    parts = json.loads((data / "evaluation.json").read_text(encoding="utf-8"))
    queries = parts["queries"][:SAMPLE_QUERIES]
    used = {str(number) for query in queries for number in query["candidates"]}
    documents = {key: text for key, text in parts["documents"].items() if key in used}
    sample = {"queries": queries, "documents": documents}
    path.write_text(json.dumps(sample, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")


def write_golden(model: Path, path: Path) -> None:
    """Write the scores of fixed pairs."""
    from reference import Reference

    reference = Reference(model)
    rows = [
        {
            "query": query,
            "instruction": instruction,
            "document": document,
            "logit": round(logit, 6),
            "score": round(1 / (1 + math.exp(-logit)), 9),
        }
        for query, instruction, documents in GOLDEN
        for document, logit in zip(
            documents, reference.logits(query, documents, instruction), strict=True
        )
    ]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Evaluate the small reranker.")
    parser.add_argument("--data", type=Path, help="what prepare.py wrote")
    parser.add_argument("--model", type=Path, help="the checkpoint")
    parser.add_argument("--queries", type=int, help="only the first so many")
    parser.add_argument("--results", type=Path, help="write the figures here, or read them")
    parser.add_argument("--card", type=Path, help="put the table of --results into this card")
    parser.add_argument("--sample", type=Path, help="write a part of the held-out queries here")
    parser.add_argument("--golden", type=Path, help="write the scores of fixed pairs here")
    options = parser.parse_args()
    if options.card:
        write_card(json.loads(options.results.read_text(encoding="utf-8")), options.card)
    elif options.sample:
        write_sample(options.data, options.sample)
    elif options.golden:
        write_golden(options.model, options.golden)
    else:
        results = measure(options.data, options.model, options.queries)
        print(table(results))
        if options.results:
            options.results.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
