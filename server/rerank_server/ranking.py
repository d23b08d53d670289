"""What is ranked, and how logits become scores and an order."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Ranking:
    """One query and the documents to order by it, whatever dialect they came in."""

    query: str
    documents: Sequence[str]
    # None: the service's own.
    instruction: str | None = None
    # False: a document too long for the model is an error, not a matter of cutting it.
    truncate: bool = True
    # Documents are cut to so many tokens even where the model takes more.
    max_document_tokens: int | None = None
    # Where the caller finds a document, given its index: what an error calls it.
    place: str = "documents[{}]"


@dataclass(slots=True)
class Scored:
    """One logit per document of a `Ranking`, in their order, and what they took."""

    logits: list[float]
    tokens: int = 0
    # Places of the documents that were cut.
    cut: list[int] = field(default_factory=list)


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


def rank(scored: Scored, top_n: int | None = None, raw: bool = False) -> list[Ranked]:
    """Order the documents by score, best first.

    Scores are in [0, 1]; `raw=True` gives the logits themselves. Equal logits keep the order of
    the request, so a request always gets the same answer. `top_n=None` keeps all documents.
    """
    logits = scored.logits
    order = sorted(range(len(logits)), key=lambda index: -logits[index])
    return [
        Ranked(index, logits[index] if raw else relevance(logits[index])) for index in order[:top_n]
    ]
