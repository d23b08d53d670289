"""vLLM in the server's process group; the only import of vllm in the repository."""

import asyncio
import uuid
from collections.abc import Sequence

from vllm import AsyncEngineArgs, PoolingParams, TokensPrompt
from vllm.platforms import current_platform
from vllm.v1.engine.async_llm import AsyncLLM

from rerank_server.engines.checkpoint import Checkpoint, Golden
from rerank_server.errors import EngineFailed, ModelUnusable
from rerank_server.settings import Settings
from rerank_server.tokens import PairTokenizer, Prompt

# Logits instead of scores: vLLM gives them in 32 bits, and the sigmoid is ours.
POOLING = PoolingParams(task="classify", use_activation=False)


class VllmEngine:
    """One model in vLLM's engine process."""

    def __init__(self, settings: Settings, checkpoint: Checkpoint) -> None:
        """Load the model; blocks until it is loaded.

        Raises:
            ModelUnusable: vLLM refused it or ran out of memory.
        """
        self._tokenizer = checkpoint.tokenizer
        self._golden = checkpoint.golden
        eager = settings.enforce_eager
        arguments = AsyncEngineArgs(
            model=str(checkpoint.directory),
            runner="pooling",
            hf_overrides=dict(checkpoint.overrides),
            dtype=settings.dtype,
            max_model_len=checkpoint.max_model_len,
            tensor_parallel_size=settings.tensor_parallel_size,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            enforce_eager=current_platform.is_cpu() if eager is None else eager,
            disable_log_stats=True,
        )
        try:
            self._llm = AsyncLLM.from_engine_args(arguments)
        # Whatever it raises here (ValueError, RuntimeError, OSError and others), its words
        # are for the person who chose model and settings.
        except Exception as error:
            raise ModelUnusable(
                f"vLLM cannot load {settings.model}: {error} (the lines above say why; memory, "
                "RERANK_DTYPE and RERANK_TENSOR_PARALLEL_SIZE are the usual suspects)"
            ) from error

    @property
    def tokenizer(self) -> PairTokenizer:
        """Writes the prompts that `score` takes."""
        return self._tokenizer

    @property
    def golden(self) -> Sequence[Golden]:
        """Pairs with the scores they must have; none if the model brings none."""
        return self._golden

    @property
    def alive(self) -> bool:
        """False once vLLM's engine process has died."""
        return not self._llm.errored

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Send all prompts at once: those of one query share its tokens in the prefix cache."""
        request_id = uuid.uuid4().hex
        try:
            async with asyncio.TaskGroup() as work:
                tasks = [
                    work.create_task(self._logit(prompt, f"{request_id}-{index}"))
                    for index, prompt in enumerate(prompts)
                ]
        except ExceptionGroup as group:
            # Prompts are checked before they come here: what fails now is vLLM.
            raise EngineFailed(str(group.exceptions[0])) from group
        return [task.result() for task in tasks]

    async def _logit(self, prompt: Prompt, request_id: str) -> float:
        # vLLM aborts a request when the task that iterates over it is cancelled.
        outputs = self._llm.encode(
            TokensPrompt(prompt_token_ids=prompt.ids), POOLING, request_id=request_id
        )
        async for output in outputs:
            if output.finished:
                return float(output.outputs.data.reshape(-1)[0])
        raise EngineFailed(f"request {request_id} ended without a score")

    def close(self) -> None:
        """Stop vLLM's processes."""
        self._llm.shutdown()
        # Its __del__ shuts down once more, and fails noisily once the interpreter is half gone.
        del self._llm
