"""Everyday questions with right and wrong answers, from patterns."""

import random
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batches import GROUP
from words import invent_word

PATTERNS = Path(__file__).with_name("everyday.toml")


class Everyday:
    """Fills the patterns of everyday.toml."""

    def __init__(self, chance: random.Random, known_names: Sequence[str]) -> None:
        patterns = tomllib.loads(PATTERNS.read_text(encoding="utf-8"))
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
