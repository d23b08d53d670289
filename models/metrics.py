"""How well one relevant document among candidates is ranked."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def figures(
    scores: NDArray[np.floating], found: NDArray[np.integer], relevant: Sequence[int]
) -> dict[str, float]:
    """Return MRR@10, NDCG@10 and how often the relevant one comes first.

    A row of `scores` belongs to a row of `found`, which holds the relevant one once. Of equal
    scores the earlier candidate goes first.
    """
    ranks = []
    for row, numbers, right in zip(scores, found, relevant, strict=True):
        order = numbers[np.argsort(-row, kind="stable")]
        ranks.append(int(np.flatnonzero(order == right)[0]) + 1)
    rank = np.array(ranks)
    seen = rank <= 10
    return {
        "MRR@10": float(np.mean(seen / rank)),
        "NDCG@10": float(np.mean(seen / np.log2(rank + 1))),
        "first": float(np.mean(rank == 1)),
    }
