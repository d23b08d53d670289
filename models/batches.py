"""Groups of prompts for training and evaluation, made from prepared arrays.

A group is one instruction and query with GROUP documents, the right one first.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

GROUP = 8
# Of the groups of training: the rest are default-instruction groups of package descriptions.
EVERYDAY_SHARE, FACET_SHARE = 0.12, 0.15

Ints = NDArray[np.int32]
Chance = np.random.Generator


class Batch(NamedTuple):
    """Prompts padded on the right, and the place of the last token of each."""

    ids: NDArray[np.int16]
    last: NDArray[np.int32]


class Rows:
    """Rows of different lengths that lie end to end."""

    def __init__(self, arrays: dict[str, NDArray[Any]], name: str) -> None:
        self._values: Ints = arrays[name]
        self._offsets: list[int] = arrays[f"{name}_offsets"].tolist()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> Ints:
        return self._values[self._offsets[index] : self._offsets[index + 1]]


class Data:
    """What prepare.py wrote."""

    def __init__(self, directory: Path) -> None:
        with np.load(directory / "arrays.npz") as file:
            arrays = dict(file)
        self.documents = Rows(arrays, "documents")
        self.synopses = Rows(arrays, "synopses")
        self.names = Rows(arrays, "names")
        self.everyday = Rows(arrays, "everyday")
        self.phrases = Rows(arrays, "phrases")
        self.generic = Rows(arrays, "generic")
        self.asking = Rows(arrays, "asking")
        self.default = Rows(arrays, "default")[0]
        self.facets: NDArray[np.int8] = arrays["facets"]
        self.split: NDArray[np.int8] = arrays["split"]
        self.neighbours: Ints = arrays["neighbours"]
        self.stem: Ints = arrays["stem"]
        self.form: NDArray[np.int8] = arrays["form"]
        self.frequency: Ints = arrays["frequency"]
        self.replacements: Ints = arrays["replacements"]
        self.ends: NDArray[np.bool_] = arrays["ends"]
        self.no_yes: Ints = arrays["answers"]
        self._ids: Ints = arrays["ids"]
        self._starts: Ints = arrays["ids_offsets"][:-1]
        self._lengths: Ints = np.diff(arrays["ids_offsets"])
        self._before_newline: Ints = arrays["before_newline"]
        self._system: Ints = arrays["system"]
        self._before_query: Ints = arrays["before_query"]
        self._before_document: Ints = arrays["before_document"]
        self._before_document_bare: Ints = arrays["before_document_bare"]
        self._suffix: Ints = arrays["suffix"]
        phrase_facet: Ints = arrays["phrase_facet"]
        self.phrases_of = [
            np.flatnonzero(phrase_facet == facet) for facet in range(self.facets.shape[1])
        ]

    def tokens(self, pieces: Ints) -> Ints:
        """Return the token ids of pieces."""
        lengths = self._lengths[pieces]
        ends = np.cumsum(lengths)
        if not len(ends):
            return pieces
        starts = np.repeat(self._starts[pieces] - ends + lengths, lengths)
        tokens: Ints = self._ids[starts + np.arange(ends[-1], dtype=np.int32)]
        return tokens

    def prefix(self, instruction: Ints, query: Ints) -> Ints:
        """Return the tokens of a prompt up to its document."""
        before_document = self._before_document
        merged = self._before_newline[query[-1]] if len(query) else -1
        if merged >= 0:
            query = np.append(query[:-1], merged)
            before_document = self._before_document_bare
        return np.concatenate([
            self._system, self.tokens(instruction), self._before_query, self.tokens(query),
            before_document,
        ])  # fmt: skip

    def fill(self, batch: Batch, row: int, prefix: Ints, document: Ints) -> None:
        """Write one prompt, its document cut to fit."""
        length = batch.ids.shape[1]
        room = length - len(prefix) - len(self._suffix)
        tokens = self.tokens(document[:room])[:room]
        end = len(prefix) + len(tokens)
        batch.ids[row, : len(prefix)] = prefix
        batch.ids[row, len(prefix) : end] = tokens
        batch.ids[row, end : end + len(self._suffix)] = self._suffix
        batch.last[row] = end + len(self._suffix) - 1


def empty_batch(rows: int, length: int) -> Batch:
    """Return a batch to fill."""
    return Batch(np.zeros((rows, length), np.int16), np.zeros(rows, np.int32))


class Groups:
    """Draws training groups: the same ones for the same seed and step."""

    def __init__(self, data: Data, seed: int) -> None:
        self._data = data
        self._seed = seed
        self._chance = np.random.default_rng(seed)
        self._train = np.flatnonzero(data.split == 0)
        allowed = data.split == 0
        self._near: dict[int, Ints] = {
            int(document): near[allowed[near] & (near != document)]
            for document, near in ((number, data.neighbours[number]) for number in self._train)
        }
        facets = data.facets[self._train]
        self._by_facet = [self._train[facets[:, number] == 1] for number in range(facets.shape[1])]
        counts = np.array([len(found) for found in self._by_facet], float)
        usable = np.where(counts >= 20, counts, 0)
        # Between one draw per facet and one per package.
        self._facet_weight = np.sqrt(usable) / max(np.sqrt(usable).sum(), 1.0)
        # Words in more than every 50th description are left alone.
        self._rare = data.frequency < max(len(data.split) // 50, 1)

    def batch(self, step: int, groups: int, length: int) -> Batch:
        """Return the prompts of so many groups, GROUP rows each."""
        self._chance = np.random.default_rng([self._seed, step])
        batch = empty_batch(groups * GROUP, length)
        for number in range(groups):
            instruction, query, documents = self._draw()
            if self._chance.random() < 0.5:
                query, *documents = self._exchange([query, *documents])
            prefix = self._data.prefix(instruction, query)[: length // 2]
            for row, document in enumerate(documents, start=number * GROUP):
                self._data.fill(batch, row, prefix, document)
        return batch

    def _draw(self) -> tuple[Ints, Ints, list[Ints]]:
        kind = self._chance.random()
        if kind < EVERYDAY_SHARE:
            start = int(self._chance.integers(len(self._data.everyday) // (GROUP + 2))) * (
                GROUP + 2
            )
            rows = [self._data.everyday[start + offset] for offset in range(GROUP + 2)]
            return rows[0], rows[1], rows[2:]
        if kind < EVERYDAY_SHARE + FACET_SHARE:
            drawn = self._facet_group()
            if drawn:
                return drawn
        return self._plain_group()

    def _plain_group(self) -> tuple[Ints, Ints, list[Ints]]:
        chance, data = self._chance, self._data
        right = int(chance.choice(self._train))
        near = self._near[right][:40]
        wrong = chance.choice(near, min(5, len(near)), replace=False) if len(near) else near
        wrong = np.concatenate([wrong, chance.choice(self._train, GROUP - 1 - len(wrong))])
        query, document = self._query(right)
        instruction = data.default
        if chance.random() < 0.1:
            instruction = data.generic[int(chance.integers(len(data.generic)))]
        documents = [document, *(data.documents[int(number)] for number in wrong)]
        return instruction, query, [self._damage(document) for document in documents]

    def _facet_group(self) -> tuple[Ints, Ints, list[Ints]] | None:
        """Right is what fits the query and is of the kind the instruction asks for."""
        chance, data = self._chance, self._data
        facet = int(chance.choice(len(self._facet_weight), p=self._facet_weight))
        right = int(chance.choice(self._by_facet[facet]))
        near = self._near[right]
        other_kind = near[data.facets[near, facet] == 0][:20]
        if not len(other_kind):
            return None
        wrong = chance.choice(other_kind, min(4, len(other_kind)), replace=False)
        same_kind = chance.choice(self._by_facet[facet], GROUP - 1 - len(wrong))
        # Its synonyms may well fit the query too, but not the rest of its kind.
        same_kind = same_kind[same_kind != right]
        rest = chance.choice(self._train, GROUP - 1 - len(wrong) - len(same_kind))
        query = data.synopses[right]
        if chance.random() < 0.7:
            query = self._rare_words(data.documents[right], query, int(chance.integers(1, 4)))
        phrases = data.phrases_of[facet]
        instruction = data.phrases[int(chance.choice(phrases))]
        numbers = [right, *wrong.tolist(), *same_kind.tolist(), *rest.tolist()]
        return instruction, query, [data.documents[number] for number in numbers]

    def _query(self, number: int) -> tuple[Ints, Ints]:
        """Return a query for a package, and what is left of its description."""
        chance, data = self._chance, self._data
        document = data.documents[number]
        kind = chance.random()
        query = data.synopses[number]
        if kind < 0.3:
            query, document = self._sentence(document)
        elif kind < 0.6:
            query = self._rare_words(document, query, int(chance.integers(2, 7)))
        elif kind < 0.8 and len(query) > 3:
            query = self._drop(query, 0.3)
        elif kind < 0.85:
            query = np.concatenate([data.names[number], query])
        if chance.random() < 0.12:
            asked = data.asking[int(chance.integers(len(data.asking)))]
            query = np.concatenate([asked, query])
        return query, document

    def _sentence(self, document: Ints) -> tuple[Ints, Ints]:
        """Return a sentence of a description, and usually the description without it."""
        ends = np.flatnonzero(self._data.ends[document]) + 1
        bounds = np.unique(np.concatenate([[0], ends, [len(document)]]))
        sizes = np.diff(bounds)
        stems = self._data.stem[document]
        rare = np.concatenate([[0], np.cumsum((stems >= 0) & self._rare[stems])])
        # "This package contains the library." fits every other description as well.
        telling = rare[bounds[1:]] - rare[bounds[:-1]] >= 2
        good = np.flatnonzero((sizes >= 4) & (sizes <= 40) & telling)
        if not len(good) or len(sizes) < 2:
            return self._rare_words(document, document[:20], 4), document
        chosen = int(self._chance.choice(good))
        start, end = int(bounds[chosen]), int(bounds[chosen + 1])
        query = document[start:end]
        if self._chance.random() < 0.8:
            document = np.concatenate([document[:start], document[end:]])
        # Questions seldom end in a full stop.
        return (query[:-1] if self._chance.random() < 0.7 else query), document

    def _rare_words(self, document: Ints, fallback: Ints, count: int) -> Ints:
        stems = self._data.stem[document]
        rare = np.flatnonzero((stems >= 0) & self._rare[stems])
        if len(rare) < count:
            return fallback
        _, first = np.unique(stems[rare], return_index=True)
        chosen = self._chance.choice(first, min(count, len(first)), replace=False)
        words: Ints = document[rare[chosen]]
        return words

    def _drop(self, pieces: Ints, share: float) -> Ints:
        kept = pieces[self._chance.random(len(pieces)) >= share]
        return kept if len(kept) >= 2 else pieces

    def _damage(self, document: Ints) -> Ints:
        """Start somewhere, or lose some words: what stands where must not be learnt by heart."""
        luck = self._chance.random()
        if luck < 0.3 and len(document) > 30:
            return document[int(self._chance.integers(len(document) - 20)) :]
        if luck < 0.6:
            return self._drop(document, self._chance.uniform(0.1, 0.25))
        return document

    def _exchange(self, texts: list[Ints]) -> list[Ints]:
        """Replace a part of the rarer words, by the same words in all texts."""
        data, chance = self._data, self._chance
        together = np.concatenate(texts)
        stems, places = np.unique(data.stem[together], return_inverse=True)
        chosen = (stems >= 0) & self._rare[stems] & (chance.random(len(stems)) < 0.4)
        replacement = chance.integers(len(data.replacements), size=len(stems))
        new = data.replacements[replacement[places], data.form[together]]
        together = np.where(chosen[places], new, together)
        return np.split(together, np.cumsum([len(text) for text in texts])[:-1])


def candidates(data: Data, queries: Sequence[int], count: int) -> Ints:
    """Return BM25's best for each query, the right one put last if it is not among them."""
    found = data.neighbours[np.array(queries), :count].copy()
    for row, query in zip(found, queries, strict=True):
        if query not in row:
            row[-1] = query
    return found


def heldout_batches(
    data: Data, queries: Sequence[int], found: Ints, length: int
) -> Iterator[Batch]:
    """Yield one batch for each query: its candidates, in their order."""
    for query, row in zip(queries, found, strict=True):
        batch = empty_batch(len(row), length)
        prefix = data.prefix(data.default, data.synopses[query])
        for place, document in enumerate(row):
            data.fill(batch, place, prefix, data.documents[int(document)])
        yield batch
