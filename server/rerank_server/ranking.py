"""From logits to scores to results."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document in the order of relevance; `index` is its place in the request."""

    index: int
    score: float


def relevance(logit: float) -> float:
    """Map a logit to (0, 1) in double precision.

    A model's own sigmoid runs in 16 bits, where everything above 6 or so is 1.0: the best
    documents would tie.
    """
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    # exp of a large positive number overflows, of a large negative one it is zero.
    power = math.exp(logit)
    return power / (1 + power)


def rank(scores: Sequence[float], top_n: int | None) -> list[Ranked]:
    """Order documents by score, best first.

    `scores` holds one value in [0, 1] per document, in request order. Equal scores keep
    that order, so a request always gets the same answer. `top_n=None` keeps them all.
    """
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    return [Ranked(index, scores[index]) for index in order[:top_n]]
