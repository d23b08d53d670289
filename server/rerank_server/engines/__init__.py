"""The seam between the server and whatever computes scores."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from rerank_server.engines.checkpoint import Golden, open_checkpoint
from rerank_server.engines.environment import prepare_environment
from rerank_server.settings import Settings
from rerank_server.tokens import PairTokenizer, Prompt


class Engine(Protocol):
    """One loaded model."""

    @property
    def tokenizer(self) -> PairTokenizer:
        """Writes the prompts that `score` takes."""

    @property
    def golden(self) -> Sequence[Golden]:
        """Pairs with the scores they must have; none if the model brings none."""

    @property
    def alive(self) -> bool:
        """False once the engine has broken for good: only a new process helps."""

    @property
    def steps(self) -> int:
        """Steps done so far, for work that was given up meanwhile, too."""

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Return one logit per prompt, in their order and in 32 bits.

        Being cancelled takes the work out of the engine.

        Raises:
            EngineFailed: the engine broke.
        """

    def close(self) -> None:
        """Stop the engine and its processes."""


def load_engines(settings: Settings) -> list[Engine]:
    """Load the model into each engine; takes from seconds to minutes and blocks.

    Raises:
        ModelUnusable: the model cannot be served; the message says what to change.
    """
    # First what fails fast: importing vLLM alone takes ten seconds and more.
    checkpoint = open_checkpoint(settings)
    prepare_environment(settings.log_level, settings.log_dir)
    from rerank_server.engines.vllm import VllmEngine

    # Not vLLM's own data_parallel_size, which gives each a GPU of its own; and one after the other,
    # as each measures the GPU's memory while it starts.
    engines: list[Engine] = []
    with ExitStack() as unfinished:
        for number in range(settings.engines_per_gpu):
            engine = VllmEngine(settings, checkpoint, number)
            unfinished.callback(engine.close)
            engines.append(engine)
        unfinished.pop_all()
    return engines
