"""What is kept out of training, and the questions about it that the model is judged by."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus import Package
from pieces import Ints

# Never seen in training, like every other package of the same source.
TEST_SECTIONS = frozenset({"games", "science", "hamradio", "sound", "electronics", "mail"})
VALIDATION_SECTIONS = frozenset({"graphics"})
TEST_QUERIES = 3000
CANDIDATES = 50
PAIR_INSTRUCTIONS = {
    "doc": "Find documentation",
    "libdevel": "Find development files",
    "python": "Find Python modules",
    "games": "Find games",
    "science": "Find scientific software",
}


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


def evaluation(
    packages: Sequence[Package],
    parts: NDArray[np.int8],
    neighbours: Ints,
    chance: random.Random,
) -> dict[str, Any]:
    """Return the held-out questions as text.

    `queries` have BM25's best as candidates, in its order; a relevant one that is not among them
    takes the last place. `pairs` are two packages of one held-out source with the instruction that
    asks for the first: `other` is the one that asks for the second.
    """
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
