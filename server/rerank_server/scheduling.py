"""Whose documents go to the engine next."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# What one kind of work, small or large, may take of the window while the other waits or not.
SHARE = 0.75
# Parts of each engine's share of the window in which a request's pairs come.
SLICES = 4
# Without small work for so long, the window is so many times as wide: larger steps do more.
WIDE_AFTER_SECONDS = 10.0
WIDE = 8


@dataclass(order=True)
class Turn:
    """One slice of a request's pairs, waiting for the window or in it."""

    ticket: int
    number: int
    tokens: int = field(compare=False)
    small: bool = field(compare=False)
    admitted: "asyncio.Future[None]" = field(compare=False)


class Window:
    """Bounds the tokens that are in the engines at once.

    What is in an engine cannot be overtaken, so there is no more in it than keeps it busy. Large
    work leaves a part of the window to small work and the other way round: neither waits for all
    of the other. Within a kind the oldest request goes first.
    """

    def __init__(self, tokens: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`tokens` is the size of the window while there is small work, at least 1."""
        self.tokens = tokens
        # Among which the tokens are shared out.
        self.engines = 1
        self._clock = clock
        self._last_small = clock() - WIDE_AFTER_SECONDS
        self._taken = {True: 0, False: 0}
        self._waiting: dict[bool, list[Turn]] = {True: [], False: []}
        self._numbers = itertools.count()

    @property
    def slice_tokens(self) -> int:
        """How many tokens should enter at once."""
        return self._size() // (SLICES * self.engines)

    @property
    def full(self) -> bool:
        """Whether anything waits to get in."""
        return any(self._waiting.values())

    async def enter(self, ticket: int, tokens: int, small: bool) -> Turn:
        """Wait for room for a slice of a request; who has got in has to `leave`.

        `ticket` is the request's place in the order of arrival. A slice larger than the window
        gets in when there is no other of its kind.
        """
        if small:
            self._last_small = self._clock()
        admitted = asyncio.get_running_loop().create_future()
        turn = Turn(ticket, next(self._numbers), tokens, small, admitted)
        heapq.heappush(self._waiting[small], turn)
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if not admitted.cancelled():
                self.leave(turn)
            self._admit()
            raise
        return turn

    def leave(self, turn: Turn) -> None:
        """Make room for others."""
        self._taken[turn.small] -= turn.tokens
        self._admit()

    def _admit(self) -> None:
        while kinds := [small for small in (True, False) if self._has_room(small)]:
            small = min(kinds, key=lambda kind: self._waiting[kind][0])
            turn = heapq.heappop(self._waiting[small])
            self._taken[small] += turn.tokens
            turn.admitted.set_result(None)

    def _has_room(self, small: bool) -> bool:
        waiting = self._waiting[small]
        while waiting and waiting[0].admitted.cancelled():
            heapq.heappop(waiting)
        if not waiting:
            return False
        taken, tokens = self._taken[small], waiting[0].tokens
        size = self._size()
        within_share = taken + tokens <= size * SHARE
        within_window = sum(self._taken.values()) + tokens <= size
        # One slice of each kind is always in: a share too small for any would starve it.
        return taken == 0 or (within_share and within_window)

    def _size(self) -> int:
        quiet = self._clock() - self._last_small >= WIDE_AFTER_SECONDS
        return self.tokens * WIDE if quiet else self.tokens
