import pytest

from rerank_server.speed import SMOOTHING, WINDOW_SECONDS, Speed


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("rerank_server.speed.time.monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def speed(clock: Clock) -> Speed:
    speed = Speed()
    speed.measured(10, 1000)
    speed.start()
    return speed


@pytest.mark.parametrize(
    ("saturated", "pairs"),
    [
        ([True, True], 10 + SMOOTHING * (60 - 10)),
        # Of all that the clients sent in that time: the engine is no slower.
        ([True, False], 10 + SMOOTHING * (60 - 10)),
        ([False, True], 10 + SMOOTHING * (60 - 10)),
    ],
)
def test_speed_follows_an_engine_that_has_all_it_can_take(
    saturated: list[bool], pairs: float, speed: Speed, clock: Clock
) -> None:
    for full in saturated:
        clock.now += 0.5
        speed.done(30, 3000, full)

    assert speed.pairs == pytest.approx(pairs)
    assert speed.tokens == pytest.approx(100 * pairs)


def test_clients_that_send_little_say_nothing_of_the_speed(speed: Speed, clock: Clock) -> None:
    for _ in range(10):
        clock.now += 1
        speed.done(1, 100, saturated=False)

    assert speed.pairs == 10


def test_engine_that_is_slower_with_other_documents_is_known_to_be_fast_again(
    speed: Speed, clock: Clock
) -> None:
    for _ in range(20):
        clock.now += 1
        speed.done(1, 100, saturated=True)
    slow = speed.pairs
    speed.stop()

    for _ in range(60):
        speed.start()
        clock.now += 0.05
        speed.done(1, 100, saturated=False)
        speed.stop()
        clock.now += 10

    assert slow == pytest.approx(1, rel=0.1)
    assert speed.pairs > 5
    assert speed.utilization() < 0.1


def test_time_without_work_says_nothing_of_the_speed(speed: Speed, clock: Clock) -> None:
    speed.stop()
    clock.now += 100
    speed.start()
    clock.now += 1

    speed.done(60, 6000, saturated=True)

    assert speed.pairs == pytest.approx(10 + SMOOTHING * (60 - 10))


def test_utilization_is_of_the_last_minute(speed: Speed, clock: Clock) -> None:
    for _ in range(WINDOW_SECONDS // 2):
        clock.now += 1
        speed.done(5, 500, saturated=False)
    after_half = speed.utilization()

    clock.now += WINDOW_SECONDS // 2
    after_all = speed.utilization()
    clock.now += WINDOW_SECONDS // 2

    assert after_half == pytest.approx(0.25)
    assert after_all == pytest.approx(0.25, rel=0.05)
    assert speed.utilization() == 0


def test_nothing_is_used_of_an_engine_whose_speed_nobody_knows() -> None:
    assert Speed().utilization() == 0
