"""An engine that is asked whether it gets anywhere with its work."""

import asyncio
import time
from collections.abc import Sequence

from rerank_server.engines import Engine
from rerank_server.engines.checkpoint import Golden
from rerank_server.tokens import PairTokenizer, Prompt


class WatchedEngine:
    """Another engine, and for how long it has had work and done none of it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Of the prompts in it.
        self.tokens = 0
        self._calls = 0
        self._since = 0.0
        # Seconds without progress until the last call that waited was given up.
        self._idle = 0.0
        self._steps = engine.steps

    @property
    def tokenizer(self) -> PairTokenizer:
        """Writes the prompts that `score` takes."""
        return self._engine.tokenizer

    @property
    def golden(self) -> Sequence[Golden]:
        """Pairs with the scores they must have; none if the model brings none."""
        return self._engine.golden

    @property
    def alive(self) -> bool:
        """False once the engine has broken for good: only a new process helps."""
        return self._engine.alive

    @property
    def steps(self) -> int:
        """Steps done so far, for work that was given up meanwhile, too."""
        return self._engine.steps

    @property
    def idle_seconds(self) -> float:
        """For how long work was in the engine and none got done.

        Time in which there was none does not count.
        """
        if self._engine.steps != self._steps:
            self._progress()
        return time.monotonic() - self._since if self._calls else self._idle

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return one logit per prompt, as `Engine.score`."""
        if not self._calls:
            self._since = time.monotonic() - self._idle
        tokens = sum(len(prompt.ids) for prompt in prompts)
        self._calls += 1
        self.tokens += tokens
        try:
            logits = await self._engine.score(prompts)
        except asyncio.CancelledError:
            if self._engine.steps != self._steps:
                self._progress()
            # Or an engine that hangs would pass for a sound one where every caller gives up.
            self._idle = time.monotonic() - self._since
            raise
        finally:
            self._calls -= 1
            self.tokens -= tokens
        self._progress()
        return logits

    def close(self) -> None:
        """Stop the engine and its processes."""
        self._engine.close()

    def _progress(self) -> None:
        self._steps = self._engine.steps
        self._idle, self._since = 0.0, time.monotonic()
