import math

import pytest

from rerank_server.ranking import Scored, rank, relevance


def test_best_comes_first() -> None:
    ranking = rank(Scored([0.1, 0.9, -0.5]))

    assert [ranked.index for ranked in ranking] == [1, 0, 2]
    assert [ranked.score for ranked in ranking] == [relevance(0.9), relevance(0.1), relevance(-0.5)]


def test_raw_scores_are_the_logits() -> None:
    assert [ranked.score for ranked in rank(Scored([-3.0, 9.0]), raw=True)] == [9.0, -3.0]


def test_logits_that_round_to_one_score_keep_their_order() -> None:
    assert [ranked.index for ranked in rank(Scored([800.0, 900.0]))] == [1, 0]


def test_equal_scores_keep_the_order_of_the_request() -> None:
    assert [ranked.index for ranked in rank(Scored([0.5, 0.7, 0.5, 0.7]))] == [1, 3, 0, 2]


@pytest.mark.parametrize(("top_n", "count"), [(1, 1), (3, 3), (99, 3), (None, 3)])
def test_top_n_cuts_and_more_than_there_are_is_all(top_n: int | None, count: int) -> None:
    assert len(rank(Scored([0.1, 0.2, 0.3]), top_n)) == count


def test_relevance_is_the_sigmoid() -> None:
    assert relevance(0) == 0.5
    assert relevance(math.log(3)) == pytest.approx(0.75)
    assert relevance(-2) == pytest.approx(1 - relevance(2))


def test_high_logits_stay_apart() -> None:
    assert relevance(12) < relevance(12.5) < 1


def test_no_logit_overflows() -> None:
    assert relevance(-1000) == 0
    assert relevance(1000) == 1
