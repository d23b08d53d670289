"""Package descriptions of the Debian release this machine runs, fetched with apt and parsed."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# Shorter ones say too little to be found by.
MIN_CHARACTERS = 120


class Package(NamedTuple):
    """One distinct long description, with the first package that carries it."""

    name: str
    source: str
    section: str
    tags: frozenset[str]
    synopsis: str
    description: str


def cache_directory() -> Path:
    """Return where everything fetched and prepared is kept, outside of the checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "rerank-model"


def fetch_packages(cache: Path) -> list[Package]:
    """Return all packages with a long description, sorted by name.

    The lists are fetched once, into `cache`; the machine's own lists stay as they are.
    """
    options = [
        f"-oDir::State::Lists={cache / 'lists'}",
        f"-oDir::Cache={cache / 'apt'}",
        "-oAcquire::Languages=en",
        "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
        "-oAPT::Sandbox::User=root",
    ]
    for part in ("lists/partial", "apt/archives/partial"):
        (cache / part).mkdir(parents=True, exist_ok=True)
    if not any((cache / "lists").glob("*Packages*")):
        subprocess.run(["apt-get", *options, "update"], check=True)
    targets = subprocess.run(
        ["apt-get", *options, "indextargets", "--format", "$(CREATED_BY) $(ORIGIN) $(FILENAME)"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    files: dict[str, list[str]] = {"Packages": [], "Translations": []}
    for kind, origin, path in (line.split(" ", 2) for line in targets):
        if kind in files and origin == "Debian":
            files[kind].append(path)
    return _parse(files["Packages"], files["Translations"])


def _parse(lists: list[str], translations: list[str]) -> list[Package]:
    texts = {
        stanza["Description-md5"]: stanza["Description-en"]
        for path in translations
        for stanza in _stanzas(path)
        if "Description-en" in stanza
    }
    stanzas = sorted(
        (stanza for path in lists for stanza in _stanzas(path)), key=lambda found: found["Package"]
    )
    packages: dict[str, Package] = {}
    for stanza in stanzas:
        synopsis, _, body = texts.get(stanza.get("Description-md5", ""), "").partition("\n")
        description = _join_lines(body)
        if len(description) < MIN_CHARACTERS or description in packages:
            continue
        packages[description] = Package(
            name=stanza["Package"],
            source=stanza.get("Source", stanza["Package"]).split(" ")[0],
            section=stanza.get("Section", "misc").split("/")[-1],
            tags=_tags(stanza.get("Tag", "")),
            synopsis=synopsis.strip(),
            description=description,
        )
    return list(packages.values())


def _stanzas(path: str) -> Iterator[dict[str, str]]:
    # It reads every compression that apt fetches.
    text = subprocess.run(
        ["/usr/lib/apt/apt-helper", "cat-file", path], check=True, capture_output=True
    ).stdout.decode()
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line.startswith((" ", "\t")):
                fields[key] += "\n" + line
            else:
                key, _, value = line.partition(":")
                fields[key] = value.strip()
        if fields:
            yield fields


def _join_lines(body: str) -> str:
    """Undo the line breaks; paragraphs and list items keep one.

    Source: https://www.debian.org/doc/debian-policy/ch-controlfields.html#description
    """
    text = ""
    for line in body.splitlines():
        if line.strip() == ".":
            text += "\n"
        elif line.startswith("  ") or re.match(r" [*+-] ", line):
            text = text.rstrip("\n") + "\n" + line.strip()
        else:
            text += ("" if text.endswith("\n") else " ") + line.strip()
    return re.sub(r"\n+", "\n", text).strip()


def _tags(field: str) -> frozenset[str]:
    """Expand `a::{b,c}` and leave out what nobody has decided yet."""
    found: set[str] = set()
    for facet, several, one in re.findall(r"([\w-]+)::(?:\{([^}]*)\}|([^\s,]+))", field):
        found.update(f"{facet}::{tag.strip()}" for tag in (several or one).split(","))
    return frozenset(tag for tag in found if not tag.endswith("TODO"))
