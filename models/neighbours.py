"""What BM25 finds: the wrong documents that look right."""

from collections.abc import Sequence
from typing import Any

import bm25s
import numpy as np
import Stemmer

from corpus import Package
from pieces import Ints


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
