"""vLLM as the server starts it, but stepped by hand in this process.

So one process can load one small model after the other; a server apiece takes a minute.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rerank_server.engines.checkpoint import open_checkpoint
from rerank_server.engines.environment import prepare_environment
from rerank_server.ranking import relevance
from rerank_server.settings import Settings
from rerank_server.tokens import Pairs

# How vLLM looks at a class that it has not imported: in a process, which imports all of vLLM anew.
LOOKS = "vllm.model_executor.models.registry._run_in_subprocess"


def _refuse(_: object) -> None:
    pytest.fail("vLLM starts a process to look at a model")


@contextlib.contextmanager
def vllm_in_this_process() -> Iterator[None]:
    """Prepare the environment for `InProcess`, and clean up."""
    before = dict(os.environ)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    prepare_environment("error", None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LOOKS, _refuse)
        yield
    os.environ.clear()
    os.environ.update(before)


class InProcess:
    """One model; `settings` are those of the server."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        from vllm.v1.engine.core_client import InprocClient
        from vllm.v1.executor import Executor

        from rerank_server.engines.vllm import Pooling, engine_config

        chosen = Settings(model=str(directory), **{"dtype": "float32"} | settings)
        checkpoint = open_checkpoint(chosen)
        config = engine_config(chosen, checkpoint)
        self.tokenizer = checkpoint.tokenizer
        self._pooling = Pooling(config.model_config)
        self._client = InprocClient(config, Executor.get_class(config), log_stats=False)

    def pairs(self, query: str, documents: Sequence[str], instruction: str | None = None) -> Pairs:
        """Return what `scores` sends."""
        return self.tokenizer.pairs(self.tokenizer.question(query, instruction), documents)

    def scores(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> list[float]:
        """Return scores in the order of the documents."""
        return [relevance(logit) for logit in self.logits(query, documents, instruction)]

    def logits(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> list[float]:
        """Return what the server's engine would."""
        prompts = self.pairs(query, documents, instruction).prompts
        for index, prompt in enumerate(prompts):
            request = self._pooling.request(str(index), prompt, time.time())
            self._client.add_request(request)
        logits = [float("nan")] * len(prompts)
        left = len(prompts)
        while left:
            for output in self._client.get_output().outputs:
                logits[int(output.request_id)] = float(output.pooling_output.reshape(-1)[0])
                left -= 1
        return logits

    def close(self) -> None:
        """Make room for the next."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._client.shutdown()
        cleanup_dist_env_and_memory()
