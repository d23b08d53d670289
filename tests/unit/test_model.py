"""The small reranker's files, and how its figures are counted. Its scores are tested with vLLM."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from metrics import figures


def test_figures_of_ranks_one_two_and_eleven() -> None:
    found = np.tile(np.arange(12), (3, 1))
    scores = np.tile(-np.arange(12.0), (3, 1))

    counted = figures(scores, found, relevant=[0, 1, 10])

    assert counted["MRR@10"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert counted["NDCG@10"] == pytest.approx((1 + 1 / math.log2(3) + 0) / 3)
    assert counted["first"] == pytest.approx(1 / 3)


def test_equal_scores_keep_the_order_of_the_candidates() -> None:
    counted = figures(np.zeros((1, 3)), np.array([[7, 8, 9]]), relevant=[8])

    assert counted["MRR@10"] == 0.5


def test_checkpoint_stays_small_enough_for_a_repository(tiny_model: Path) -> None:
    sizes = [path.stat().st_size for path in tiny_model.rglob("*")]

    assert sum(sizes) <= 12_000_000


def test_golden_scores_are_the_sigmoid_of_their_logits(tiny_model: Path) -> None:
    golden = json.loads((tiny_model / "golden.json").read_text(encoding="utf-8"))

    expected = [1 / (1 + math.exp(-pair["logit"])) for pair in golden]

    assert [pair["score"] for pair in golden] == pytest.approx(expected, abs=1e-6)
