"""A stand-in for vLLM: an engine whose scores mean nothing, on command slow or broken.

For tests of everything around the engine. What is promised about scores is tested with vLLM.
"""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

from rerank_server.engines.checkpoint import Golden
from rerank_server.errors import EngineFailed
from rerank_server.families import QWEN3
from rerank_server.tokens import PairTokenizer, Prompt


class StandInEngine:
    """Scores a prompt by the sum of its tokens; fails and waits as told."""

    def __init__(self, model: Path, max_model_len: int = 512) -> None:
        text = (model / "tokenizer.json").read_text(encoding="utf-8")
        self.tokenizer = PairTokenizer(text, QWEN3, max_model_len, None)
        self.golden: Sequence[Golden] = ()
        self.alive = True
        # Fails what it is asked without being dead.
        self.broken = False
        self.closed = False
        self.cancelled = asyncio.Event()
        # Cleared: requests wait in the engine until it is set again.
        self.running = asyncio.Event()
        self.running.set()
        self.seconds_per_prompt = 0.0
        self.calls = 0
        self.prompts_done = 0
        self.steps = 0
        self.entered = asyncio.Event()
        self._step = asyncio.Lock()
        self.logits: list[float] | None = None

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return `logits` if set, over and over, else a value that depends on the prompt alone."""
        self.entered.set()
        self.calls += 1
        try:
            await self.running.wait()
            # One call after the other, as a real engine's steps.
            async with self._step:
                await asyncio.sleep(self.seconds_per_prompt * len(prompts))
                self.steps += 1
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.broken or not self.alive:
            raise EngineFailed("the worker at /secret/path died")
        self.prompts_done += len(prompts)
        if self.logits is not None:
            return [*itertools.islice(itertools.cycle(self.logits), len(prompts))]
        return [(sum(prompt.ids) % 997 + 1) / 100 - 5 for prompt in prompts]

    def close(self) -> None:
        """Remember that somebody cleaned up."""
        self.closed = True
