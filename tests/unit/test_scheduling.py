import asyncio

import pytest

from rerank_server.scheduling import WIDE_AFTER_SECONDS, Turn, Window


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


class Line:
    """Requests at a window: who has got in, in their order, and who still waits."""

    def __init__(self, tokens: int) -> None:
        self.now = WIDE_AFTER_SECONDS
        self.window = Window(tokens, lambda: self.now)
        # As if there had been small work just now.
        self.now = 0.0
        self.inside: dict[str, Turn] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, name: str, ticket: int, tokens: int, small: bool = False) -> None:
        async def enter() -> None:
            self.inside[name] = await self.window.enter(ticket, tokens, small)

        self.tasks[name] = asyncio.create_task(enter())
        await settle()

    async def leave(self, name: str) -> None:
        self.window.leave(self.inside.pop(name))
        await settle()


async def test_no_more_than_the_share_of_large_work_is_in() -> None:
    line = Line(100)

    for number in range(6):
        await line.come(f"{number}", number, 25)

    assert list(line.inside) == ["0", "1", "2"]


async def test_small_work_gets_in_beside_large_work_that_waits() -> None:
    line = Line(100)
    for number in range(6):
        await line.come(f"{number}", 1, 25)

    await line.come("small", 9, 20, small=True)

    assert "small" in line.inside


async def test_large_work_gets_in_beside_small_work_that_waits() -> None:
    line = Line(100)
    for number in range(6):
        await line.come(f"{number}", 1, 25, small=True)

    await line.come("large", 9, 25)

    assert "large" in line.inside


async def test_room_goes_to_the_oldest_request() -> None:
    line = Line(100)
    await line.come("first", 1, 75)
    await line.come("newer", 3, 75)
    await line.come("older", 2, 75)

    await line.leave("first")

    assert list(line.inside) == ["older"]


@pytest.mark.parametrize("small", [True, False])
async def test_slice_larger_than_the_window_gets_in_alone(small: bool) -> None:
    line = Line(100)
    await line.come("huge", 1, 1000, small)
    await line.come("next", 2, 10, small)
    inside = list(line.inside)

    await line.leave("huge")

    assert inside == ["huge"]
    assert list(line.inside) == ["next"]


async def test_huge_large_slice_does_not_keep_small_work_out() -> None:
    line = Line(100)

    await line.come("huge", 1, 1000)
    await line.come("small", 2, 10, small=True)

    assert list(line.inside) == ["huge", "small"]


async def test_who_gives_up_waiting_makes_way() -> None:
    line = Line(100)
    await line.come("first", 1, 75)
    await line.come("gives up", 2, 75)
    await line.come("next", 3, 75)

    line.tasks["gives up"].cancel()
    await line.leave("first")

    assert list(line.inside) == ["next"]


async def test_who_gives_up_just_when_let_in_leaves_no_hole() -> None:
    line = Line(100)
    await line.come("first", 1, 75)
    await line.come("gives up", 2, 75)
    await line.come("next", 3, 75)

    # Let in and cancelled before its task could run.
    line.window.leave(line.inside.pop("first"))
    line.tasks["gives up"].cancel()
    await settle()

    assert list(line.inside) == ["next"]


def test_slices_are_no_larger_for_several_engines() -> None:
    one, three = Window(1000), Window(3000)

    three.engines = 3

    assert one.slice_tokens == three.slice_tokens


async def test_window_is_wide_until_small_work_comes() -> None:
    line = Line(100)
    line.now = WIDE_AFTER_SECONDS
    for number in range(25):
        await line.come(f"{number}", number, 25)
    wide = len(line.inside)

    await line.come("small", 25, 25, small=True)
    await line.leave("0")

    assert wide == 24
    assert sorted(line.inside) == sorted([*map(str, range(1, 24)), "small"])
