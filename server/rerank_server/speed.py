"""How fast the engines are together, and how much of that is used."""

import time
from collections import deque

# How fast the known speed follows the real one; each measurement covers a second or more.
SMOOTHING = 0.3
# What utilization is about. Long enough for a mean, short enough to follow a burst.
WINDOW_SECONDS = 60


class Speed:
    """Pairs and tokens a second: measured at start, and again by what is done."""

    def __init__(self) -> None:
        # Of all engines, 0 until measured.
        self.pairs = 0.0
        self.tokens = 0.0
        # Since the last measurement: for how long there was work, what was done, and whether the
        # engines had all they could take all that time.
        self._began: float | None = None
        self._busy_seconds = 0.0
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
        self._began = time.monotonic()

    def stop(self) -> None:
        """Note that there is none any more."""
        if self._began is not None:
            self._busy_seconds += time.monotonic() - self._began
            self._began = None

    def done(self, pairs: int, tokens: int, saturated: bool) -> None:
        """Note what the engine has done.

        `saturated`: more waited than it could take. Only then does this tell its speed; otherwise
        it may be that of the clients, and the engine's is no less.
        """
        now = time.monotonic()
        self._pairs += pairs
        self._tokens += tokens
        self._saturated &= saturated
        seconds = self._busy_seconds + (now - self._began if self._began is not None else 0)
        if seconds >= 1:
            self._measure(self._pairs / seconds, self._tokens / seconds)
            self._busy_seconds, self._pairs, self._tokens, self._saturated = 0.0, 0, 0, True
            self._began = now
        second = int(now)
        if self._seconds and self._seconds[-1][0] == second:
            tokens += self._seconds.pop()[1]
        self._seconds.append((second, tokens))
        self._forget(now)

    def utilization(self) -> float:
        """Return the part of the last minute's tokens that the engine has done; 1 is all."""
        if not self.tokens:
            return 0.0
        self._forget(time.monotonic())
        return min(1.0, sum(tokens for _, tokens in self._seconds) / WINDOW_SECONDS / self.tokens)

    def _measure(self, pairs: float, tokens: float) -> None:
        if not self._saturated:
            pairs, tokens = max(pairs, self.pairs), max(tokens, self.tokens)
        self.measured(pairs, tokens)

    def _forget(self, now: float) -> None:
        while self._seconds and self._seconds[0][0] <= now - WINDOW_SECONDS:
            self._seconds.popleft()
