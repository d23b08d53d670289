import math

import pytest

from rerank_server.ranking import Ranked, rank, relevance


def test_best_comes_first() -> None:
    assert rank([0.1, 0.9, 0.5], None) == [Ranked(1, 0.9), Ranked(2, 0.5), Ranked(0, 0.1)]


def test_equal_scores_keep_the_order_of_the_request() -> None:
    assert [ranked.index for ranked in rank([0.5, 0.7, 0.5, 0.7], None)] == [1, 3, 0, 2]


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (3, 3), (99, 3), (None, 3)])
def test_top_n_cuts_and_more_than_there_are_is_all(top_n: int | None, count: int) -> None:
    assert len(rank([0.1, 0.2, 0.3], top_n)) == count


def test_relevance_is_the_sigmoid() -> None:
    assert relevance(0) == 0.5
    assert relevance(math.log(3)) == pytest.approx(0.75)
    assert relevance(-2) == pytest.approx(1 - relevance(2))


def test_high_logits_stay_apart() -> None:
    assert relevance(12) < relevance(12.5) < 1


def test_no_logit_overflows() -> None:
    assert relevance(-1000) == 0
    assert relevance(1000) == 1
