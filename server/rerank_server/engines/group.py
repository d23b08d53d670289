"""Engines that hold the same model and share its work."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rerank_server.engines import Engine
from rerank_server.engines.watched import WatchedEngine
from rerank_server.errors import EngineFailed
from rerank_server.tokens import PairTokenizer, Prompt


class EngineGroup:
    """One engine or several, each watched for itself: none that hangs hides behind the others."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        """`engines` are loaded, and there is at least one."""
        self.engines = [WatchedEngine(engine) for engine in engines]

    @property
    def tokenizer(self) -> PairTokenizer:
        """Writes the prompts that `score` takes."""
        return self.engines[0].tokenizer

    @property
    def alive(self) -> bool:
        """False once one of them has broken for good: only a new process helps."""
        return all(engine.alive for engine in self.engines)

    @property
    def idle_seconds(self) -> float:
        """For how long work was in one of them and none of that got done."""
        return max(engine.idle_seconds for engine in self.engines)

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return one logit per prompt, as `Engine.score`, all from the engine with least to do.

        Raises:
            EngineFailed: that engine broke, or one of the others had before.
        """
        if not self.alive:
            # A dead one has nothing to do, so that all work would go there.
            raise EngineFailed("an engine has died")
        # One that hangs is soon without work, where its callers give up.
        least = min(self.engines, key=lambda engine: (engine.tokens, engine.idle_seconds))
        return await least.score(prompts)

    def close(self) -> None:
        """Stop all engines and their processes."""
        # At once: each takes seconds to end, and a pod that is going away has few.
        with ThreadPoolExecutor(len(self.engines)) as threads:
            for closing in [threads.submit(engine.close) for engine in self.engines]:
                closing.result()
