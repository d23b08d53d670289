"""docs/status.md tells of each condition and reason that there is, and of no other."""

import re
from pathlib import Path

from rerank_operator import names

DOCUMENT = (Path(__file__).parents[2] / "docs" / "status.md").read_text()


def section(heading: str) -> str:
    return DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def test_every_condition_is_told() -> None:
    assert sorted(first_cells(section("Conditions"))) == sorted(names.CONDITIONS)


def test_every_reason_is_told_once() -> None:
    told = first_cells("".join(map(section, re.findall(r"^## (Reasons .*)$", DOCUMENT, re.M))))
    reasons = [
        value
        for name, value in vars(names).items()
        if name.isupper() and isinstance(value, str) and re.fullmatch(r"([A-Z][a-z]*)+", value)
    ]

    assert sorted(told) == sorted(set(reasons) - names.CONDITIONS)
