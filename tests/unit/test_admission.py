from typing import Any

import pytest

from rerank_server.admission import SMOOTHING, Arriving, Queue, check_size
from rerank_server.errors import Overloaded, TooLarge
from rerank_server.metrics import Metrics
from rerank_server.ranking import Ranking
from rerank_server.settings import Settings


def make_queue(
    limit: int = 100, speed: float | None = None, metrics: Metrics | None = None
) -> Queue:
    queue = Queue(limit, metrics or Metrics())
    if speed is not None:
        queue.measured(speed)
    return queue


@pytest.mark.parametrize(
    ("limits", "rankings", "message"),
    [
        (
            {"max_documents": 3},
            [Ranking("q", ["a"] * 4)],
            "the request has 4 documents, and the limit is 3: send them in several requests",
        ),
        ({"max_documents": 3}, [Ranking("q", ["a"] * 2)] * 2, "the request has 4 documents"),
        ({"max_queued_pairs": 3}, [Ranking("q", ["a"] * 4)], "the request has 4 documents"),
        ({"max_query_chars": 3}, [Ranking("quer", ["a"])], "the query has 4 characters"),
        ({"max_query_chars": 3}, [Ranking("q", ["a"], "inst")], "the instruction has 4"),
        ({"max_document_chars": 3}, [Ranking("q", ["a", "text"])], "documents[1] has 4 characters"),
    ],
)
def test_each_limit_names_itself(
    limits: dict[str, Any], rankings: list[Ranking], message: str
) -> None:
    settings = Settings(model="m", **limits)

    with pytest.raises(TooLarge) as refusal:
        check_size(rankings, settings)

    assert str(refusal.value).startswith(message)


def test_request_at_every_limit_is_let_in() -> None:
    settings = Settings(model="m", max_documents=2, max_query_chars=3, max_document_chars=4)

    check_size([Ranking("que", ["text", "text"], "ins")], settings)


def test_queue_over_its_limit_refuses_and_tells_when_there_is_room() -> None:
    queue = make_queue(limit=100, speed=10)

    with queue.admit(80, None), pytest.raises(Overloaded) as refusal, queue.admit(70, None):
        pass

    # 50 pairs too many, 10 a second.
    assert refusal.value.retry_after_seconds == 5
    assert "80 query-document pairs wait already, and the limit is 100" in str(refusal.value)


def test_done_pairs_make_room() -> None:
    queue = make_queue(limit=100)

    with queue.admit(80, None) as work:
        work.done(60, saturated=True)
        with queue.admit(80, None):
            pass


def test_failed_request_leaves_no_pairs_behind() -> None:
    queue = make_queue(limit=100)
    with pytest.raises(ValueError, match="broken"), queue.admit(80, None) as work:
        work.done(10, saturated=True)
        raise ValueError("broken")

    with queue.admit(100, None):
        pass


def test_request_that_cannot_be_done_in_time_is_refused_at_once() -> None:
    queue = make_queue(limit=1000, speed=10)

    with queue.admit(50, None), pytest.raises(Overloaded) as refusal, queue.admit(1, 2):
        pass

    assert refusal.value.retry_after_seconds == 3
    assert "about 5.0 s, and 2.0 s are left" in str(refusal.value)


def test_retry_after_is_bounded() -> None:
    queue = make_queue(limit=100, speed=0.001)

    with queue.admit(100, None), pytest.raises(Overloaded) as refusal, queue.admit(100, None):
        pass

    assert refusal.value.retry_after_seconds == 60


@pytest.mark.parametrize(
    ("saturated", "capacity"),
    [
        ([True, True], 10 + SMOOTHING * (60 - 10)),
        # What the clients send in that time, and not what the engine does.
        ([True, False], 10),
        ([False, True], 10),
    ],
)
def test_speed_follows_an_engine_that_has_all_it_can_take(
    saturated: list[bool], capacity: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("rerank_server.admission.time.monotonic", lambda: now)
    metrics = Metrics()
    queue = make_queue(limit=1000, speed=10, metrics=metrics)

    with queue.admit(100, None) as work:
        assert metrics.registry.get_sample_value("rerank_queue_wait_seconds") == 10
        for full in saturated:
            now += 0.5
            work.done(30, full)

        told = metrics.registry.get_sample_value("rerank_capacity_pairs_per_second")
        wait = metrics.registry.get_sample_value("rerank_queue_wait_seconds")
    assert told == pytest.approx(capacity)
    assert wait == pytest.approx(40 / capacity)


def test_bodies_that_arrive_at_once_are_bounded_in_sum() -> None:
    arriving = Arriving(100)
    arriving.add(60)

    with pytest.raises(Overloaded, match="more than 100 bytes arrive at once"):
        arriving.add(60)

    arriving.remove(60)
    arriving.add(100)
