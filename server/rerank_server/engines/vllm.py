"""vLLM in processes beside the server; the only import of vllm in the repository."""

import asyncio
import difflib
import logging
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
from vllm import AsyncEngineArgs, PoolingParams
from vllm.config import ModelConfig, VllmConfig
from vllm.model_executor.models import ModelRegistry
from vllm.platforms import current_platform
from vllm.usage.usage_lib import UsageContext
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.core_client import EngineCoreClient
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.executor import Executor

from rerank_server.engines import vllm_metrics
from rerank_server.engines.checkpoint import Checkpoint, Golden
from rerank_server.engines.environment import usable_cores
from rerank_server.errors import EngineFailed, ModelUnusable
from rerank_server.settings import Settings
from rerank_server.tokens import PairTokenizer, Prompt

# Most of a request is None for us, and which fields there are changes between versions.
BLANK = {field.name: None for field in msgspec.structs.fields(EngineCoreRequest) if field.required}

# Requests to write before others in the event loop get a turn: 64 take 2 ms or so.
BURST = 64

# The prefix cache keeps whole blocks, and by default one of 128 tokens is longer than what the
# documents of a request have in common.
CPU_ARGUMENTS = {"block_size": 32}
# Of these vLLM has an implementation. Unless it is told to take that, it also looks at the one of
# transformers.
LANGUAGE_MODEL_ARGUMENTS = {"model_impl": "vllm"}

DEAD = "vLLM's engine process has died"

log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class _Call:
    """One `score` that waits for its logits."""

    logits: list[float]
    missing: int
    done: "asyncio.Future[None]"
    failure: str = ""

    def settle(self, index: int, output: Any) -> None:
        """Take what the engine gave for one prompt: a tensor of one logit, or nothing."""
        if output is None:
            self.fail("vLLM ended a request without a score")
            return
        self.logits[index] = float(output.reshape(-1)[0])
        self.missing -= 1
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def fail(self, why: str) -> None:
        """Wake the caller, who then raises."""
        self.failure = why
        if not self.done.done():
            self.done.set_result(None)


class VllmEngine:
    """One model in vLLM's engine process.

    vLLM's own front end (`AsyncLLM`) makes a task, a queue and a chain of checks for each pair;
    this talks to the engine process as that front end does, with one future for a whole call.
    """

    def __init__(self, settings: Settings, checkpoint: Checkpoint, number: int = 0) -> None:
        """Load the model; blocks until it is loaded.

        `number` tells the engines of one server apart.

        Raises:
            ModelUnusable: vLLM refused it or ran out of memory.
        """
        self._tokenizer = checkpoint.tokenizer
        self._golden = checkpoint.golden
        self._number = number
        if current_platform.is_cpu():
            # As many threads as cores, which is torch's default, leave none for those who bring
            # the work: each step then waits for a thread that does not run.
            threads = max(1, (usable_cores() - 1) // settings.engines_per_gpu)
            os.environ.setdefault("OMP_NUM_THREADS", str(threads))
        try:
            config = engine_config(settings, checkpoint)
            self._pooling = Pooling(config.model_config)
            self._client = EngineCoreClient.make_async_mp_client(
                config, Executor.get_class(config), log_stats=True
            )
            steps = config.scheduler_config
            log.info(
                "vLLM is loaded",
                extra={
                    "engine": number,
                    "max_num_batched_tokens": steps.max_num_batched_tokens,
                    "max_num_seqs": steps.max_num_seqs,
                },
            )
        except ModelUnusable:
            raise
        # Whatever else it raises here (ValueError, RuntimeError, OSError and others), its words
        # are for the person who chose model and settings.
        except Exception as error:
            raise ModelUnusable(
                f"vLLM cannot load {settings.model}: {error} ({_advice(settings, checkpoint)})"
            ) from error
        # The call and the place in it, by request.
        self._calls: dict[str, tuple[_Call, int]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._closed = False
        self._steps = 0

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
        reading = self._reader is None or not self._reader.done()
        return reading and not self._client.resources.engine_dead

    @property
    def steps(self) -> int:
        """Steps done so far."""
        return self._steps

    async def score(self, prompts: Sequence[Prompt]) -> list[float]:
        """Send all prompts at once: those of one query share its tokens in the prefix cache."""
        loop = asyncio.get_running_loop()
        if self._reader is None:
            # Not earlier: the engine is loaded where no event loop runs.
            self._reader = loop.create_task(self._read())
        if not self.alive:
            raise EngineFailed(DEAD)
        call = _Call([0.0] * len(prompts), len(prompts), loop.create_future())
        batch, now = uuid.uuid4().hex, time.time()
        ids = [f"{batch}-{index}" for index in range(len(prompts))]
        try:
            for index, (id, prompt) in enumerate(zip(ids, prompts, strict=True)):
                if index % BURST == BURST - 1:
                    await asyncio.sleep(0)
                self._calls[id] = call, index
                await self._client.add_request_async(self._pooling.request(id, prompt, now))
            if prompts:
                await call.done
        except EngineDeadError as error:
            raise EngineFailed(DEAD) from error
        finally:
            if unfinished := [id for id in ids if self._calls.pop(id, None)]:
                await self._client.abort_requests_async(unfinished)
        if call.failure:
            raise EngineFailed(call.failure)
        return call.logits

    async def _read(self) -> None:
        """Hand out logits until the engine dies."""
        try:
            while True:
                batch = await self._client.get_output_async()
                # One comes of each step, with statistics if nothing else.
                self._steps += 1
                if batch.scheduler_stats is not None:
                    vllm_metrics.record(self._number, batch.scheduler_stats)
                for output in batch.outputs:
                    # Those of a cancelled call are nobody's.
                    if waiting := self._calls.pop(output.request_id, None):
                        call, index = waiting
                        call.settle(index, output.pooling_output)
        except EngineDeadError:
            if not self._closed:
                log.error(DEAD)
        finally:
            for call, _ in self._calls.values():
                call.fail(DEAD)

    def close(self) -> None:
        """Stop vLLM's processes."""
        self._closed = True
        self._client.shutdown()


class Pooling:
    """Makes requests for logits of one model."""

    def __init__(self, model: ModelConfig) -> None:
        self._model = model
        self._params = self._make()

    def request(self, id: str, prompt: Prompt, now: float) -> EngineCoreRequest:
        """Return the request for one pair; `now` is the time of its arrival."""
        start = prompt.second_type_at
        return EngineCoreRequest(
            **BLANK
            | {
                "request_id": id,
                "prompt_token_ids": prompt.ids,
                "pooling_params": self._params if start is None else self._make(start),
                "arrival_time": now,
            }
        )

    def _make(self, second_type_at: int | None = None) -> PoolingParams:
        # Logits instead of scores: vLLM gives them in 32 bits, and the sigmoid is ours.
        params = PoolingParams(task="classify", use_activation=False)
        if second_type_at is not None:
            params.extra_kwargs = {"compressed_token_type_ids": second_type_at}
        params.verify(self._model)
        return params


def engine_config(settings: Settings, checkpoint: Checkpoint) -> VllmConfig:
    """Return what vLLM is started with.

    Raises:
        ModelUnusable: `engine_args` names what vLLM does not know.
        Exception: vLLM's own, of many kinds, for values that do not fit the model or each other.
    """
    known = [field.name for field in fields(AsyncEngineArgs)]
    for name in settings.engine_args:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise ModelUnusable(
                f"RERANK_ENGINE_ARGS has {name!r}, which this vLLM does not know: "
                + (f"did you mean {near[0]!r}?" if near else "take it out")
            )
    _import_model(checkpoint.architectures)
    eager = settings.enforce_eager
    own: dict[str, Any] = {}
    if current_platform.is_cpu():
        own |= CPU_ARGUMENTS
    if checkpoint.is_language_model:
        own |= LANGUAGE_MODEL_ARGUMENTS
    arguments = AsyncEngineArgs(
        model=str(checkpoint.path),
        tokenizer=str(checkpoint.directory),
        hf_config_path=str(checkpoint.directory),
        runner="pooling",
        hf_overrides=dict(checkpoint.overrides),
        dtype=settings.dtype,
        quantization=settings.quantization,
        max_model_len=checkpoint.max_model_len,
        tensor_parallel_size=settings.tensor_parallel_size,
        gpu_memory_utilization=settings.gpu_memory_utilization / settings.engines_per_gpu,
        trust_remote_code=settings.trust_remote_code,
        enforce_eager=current_platform.is_cpu() if eager is None else eager,
        **own | settings.engine_args,
    )
    # It decides how much goes into one step. A GPU wants the most, since nobody waits for a next
    # token here; on a CPU a step is long, and until it ends nothing can be cancelled.
    offline, online = UsageContext.LLM_CLASS, UsageContext.OPENAI_API_SERVER
    return arguments.create_engine_config(online if current_platform.is_cpu() else offline)


def _import_model(architectures: Sequence[str]) -> None:
    """Have vLLM look at the model's class in this process.

    It would start another one for that, lest CUDA be initialised before a fork, and import all of
    itself anew there. Engines are no forks of ours, and these classes leave CUDA alone.
    """
    for architecture in architectures:
        # What it has as a language model only, it makes a classifier of.
        language_model = architecture.replace("ForSequenceClassification", "ForCausalLM")
        for name in (architecture, language_model):
            if known := ModelRegistry.models.get(name):
                ModelRegistry.register_model(name, known.load_model_cls())
                return


def _advice(settings: Settings, checkpoint: Checkpoint) -> str:
    gib = sum(file.stat().st_size for file in checkpoint.weights) / 2**30
    engines = settings.engines_per_gpu
    fewer = f"RERANK_ENGINES_PER_GPU (each of the {engines} loads them) or " if engines > 1 else ""
    return (
        f"the lines above say why; if it is memory: the weights are {gib:.1f} GiB, so give "
        "the pod more memory, a larger GPU or more of them with RERANK_TENSOR_PARALLEL_SIZE, or "
        f"lower {fewer}RERANK_MAX_MODEL_LEN; if it is the number format: set RERANK_DTYPE"
    )
