"""How fast the engine is, and how much of that is used."""

import time
from collections import deque

# How fast the known speed follows the real one; each measurement covers a second or more.
SMOOTHING = 0.3
# What utilization is about. Long enough for a mean, short enough to follow a burst.
WINDOW_SECONDS = 60


class Speed:
    """Pairs and tokens a second: measured at start, and whenever the engine has all it can take."""

    def __init__(self) -> None:
        # Of the engine, 0 until measured.
        self.pairs = 0.0
        self.tokens = 0.0
        # Since a moment, and whether the engine had all it could take all that time.
        self._since = 0.0
        self._pairs = 0
        self._tokens = 0
        self._saturated = True
        # Tokens done in each second in which some were.
        self._seconds: deque[tuple[int, int]] = deque()

    def measured(self, pairs: float, tokens: float) -> None:
        """Let the known speed follow a measurement, in both per second."""
        before = (self.pairs or pairs, self.tokens or tokens)
        self.pairs, self.tokens = (
            old + SMOOTHING * (new - old) for old, new in zip(before, (pairs, tokens), strict=True)
        )

    def start(self) -> None:
        """Note that there is work again."""
        self._measure_from(time.monotonic())

    def done(self, pairs: int, tokens: int, saturated: bool) -> None:
        """Note what the engine has done.

        `saturated`: more waited than it could take. Only then does this tell its speed, and not
        that of the clients.
        """
        now = time.monotonic()
        self._pairs += pairs
        self._tokens += tokens
        self._saturated &= saturated
        elapsed = now - self._since
        if elapsed >= 1:
            if self._saturated:
                self.measured(self._pairs / elapsed, self._tokens / elapsed)
            self._measure_from(now)
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            tokens += self._seconds.pop()[1]
        self._seconds.append((second, tokens))
        self._forget(now)

    def utilization(self) -> float:
        """Return the part of its tokens that the engine has done of late; 1 is all it can."""
        if not self.tokens:
            return 0.0
        self._forget(time.monotonic())
        return sum(tokens for _, tokens in self._seconds) / WINDOW_SECONDS / self.tokens

    def _measure_from(self, now: float) -> None:
        self._since, self._pairs, self._tokens, self._saturated = now, 0, 0, True

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW_SECONDS:
            self._seconds.popleft()
