"""Which package is of which facet (a section or tag), and the words that ask for one."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpus import Package


def read_instructions() -> dict[str, Any]:
    """Return what instructions.toml says."""
    path = Path(__file__).with_name("instructions.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def phrases(wanted: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the instructions that ask for a facet, each after the facet's number."""
    names = [*wanted["sections"].values(), *wanted["tags"].values()]
    return [
        (number, pattern.replace("{}", name))
        for number, several in enumerate(names)
        for name in several
        for pattern in wanted["patterns"]
    ]


def facets(packages: Sequence[Package], wanted: dict[str, Any]) -> NDArray[np.int8]:
    """Return by package and facet 1 yes, 0 no, -1 not known."""
    sections, tags = wanted["sections"], wanted["tags"]
    table = np.zeros((len(packages), len(sections) + len(tags)), np.int8)
    for row, package in zip(table, packages, strict=True):
        for column, section in enumerate(sections):
            row[column] = package.section == section
        for column, tag in enumerate(tags, start=len(sections)):
            row[column] = tag in package.tags if package.tags else -1
    return table
