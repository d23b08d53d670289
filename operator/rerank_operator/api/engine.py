"""`spec.engine`: how vLLM runs the model."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from rerank_operator.api.schema import PRESERVED, ApiModel, Manifest, Rules, at_least, rule

# vLLM's arguments that have a field of their own, or that the server sets, with what to do instead
# and their type, without which the API server cannot see them in a rule.
RESERVED_ARGUMENTS = {
    "model": ("string", "set model.name"),
    "hf_config_path": ("string", "the model's own is used"),
    "tokenizer": ("string", "the model's own is used"),
    "revision": ("string", "set model.revision"),
    "tokenizer_revision": ("string", "set model.revision"),
    "served_model_name": ("string", "set model.servedName"),
    "trust_remote_code": ("boolean", "set model.trustRemoteCode"),
    "hf_token": ("string", "set model.tokenSecretRef"),
    "hf_overrides": ("object", "the model's family decides it"),
    "runner": ("string", "the model's family decides it"),
    "task": ("string", "the model's family decides it"),
    "convert": ("string", "the model's family decides it"),
    "pooler_config": ("object", "the model's family decides it"),
    "dtype": ("string", "set engine.dtype"),
    "quantization": ("string", "set engine.quantization"),
    "max_model_len": ("integer", "set engine.maxModelLen"),
    "tensor_parallel_size": ("integer", "set engine.tensorParallelSize"),
    "gpu_memory_utilization": ("number", "set engine.gpuMemoryUtilization"),
    "enforce_eager": ("boolean", "set engine.enforceEager"),
    "data_parallel_size": ("integer", "set replicas"),
    "pipeline_parallel_size": ("integer", "set engine.tensorParallelSize"),
    "host": ("string", "the server has its own"),
    "port": ("integer", "the server has its own"),
    "api_key": ("string", "set auth.tokenSecretRef"),
}


_BOUNDS: dict[str, Manifest] = {"string": {"maxLength": 1024}, "object": PRESERVED}
_SCHEMA = PRESERVED | {
    "properties": {
        name: {"type": type_, "description": f"Refused: {remedy}."} | _BOUNDS.get(type_, {})
        for name, (type_, remedy) in RESERVED_ARGUMENTS.items()
    }
}
_RULES = Rules(
    *(
        rule(f"!has(self.{name})", f"engine.extraArgs.{name} is set: leave it out, {remedy}")
        for name, (_, remedy) in RESERVED_ARGUMENTS.items()
    )
)


def _unreserved(arguments: dict[str, Any]) -> dict[str, Any]:
    if reserved := sorted(RESERVED_ARGUMENTS.keys() & arguments.keys()):
        raise ValueError(f"engine.extraArgs holds {', '.join(reserved)}: leave it out")
    return arguments


class Engine(ApiModel):
    """How vLLM runs the model."""

    dtype: Annotated[
        Literal["auto", "half", "bfloat16", "float32"],
        Field(description="Precision of weights and activations; half is float16."),
    ] = "auto"
    quantization: Annotated[
        Literal["awq", "bitsandbytes", "compressed-tensors", "fp8", "gguf", "gptq"] | None,
        Field(
            description="How the weights are packed, or are to be packed at load time (fp8, "
            "bitsandbytes). Unset: as the model's own configuration says."
        ),
    ] = None
    max_model_len: Annotated[
        int,
        Field(
            ge=128,
            le=1048576,
            description="Most tokens of one query-document pair; longer documents are cut.",
        ),
    ] = 4096
    tensor_parallel_size: Annotated[
        int, Field(ge=1, le=64, description="Accelerators that share one copy of the model.")
    ] = 1
    engines_per_gpu: Annotated[
        int,
        Field(
            ge=1,
            le=8,
            description="Engine processes of a pod that share its accelerator. More than one pays "
            "where the accelerator waits for the CPU: small models with short documents. Each "
            "takes a core, memory of the pod, and for a copy of the model an equal part of "
            "gpuMemoryUtilization.",
        ),
    ] = 1
    gpu_memory_utilization: Annotated[
        float,
        Field(ge=0.05, le=1, description="Share of the accelerator's memory vLLM takes."),
        at_least("engine.gpuMemoryUtilization", 0.05),
    ] = 0.9
    enforce_eager: Annotated[
        bool | None,
        Field(
            description="Skip compilation: starts sooner, answers slower. "
            "Unset: true on the CPU, false on an accelerator."
        ),
    ] = None
    instruction: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=4096,
            description="Default task instruction of instructed models. Unset: the model's own.",
        ),
    ] = None
    score_check: Annotated[
        Literal["warn", "enforce"],
        Field(
            description="Before a pod is ready it ranks a few easy pairs. When it orders them "
            "wrongly, warn serves all the same and says so; enforce does not serve."
        ),
    ] = "warn"
    extra_args: Annotated[
        dict[str, Any],
        Field(
            description="Any other argument of vLLM's engine by its Python name, such as "
            "max_num_seqs: 64. Names that other fields stand for are refused.",
            json_schema_extra=_SCHEMA,
        ),
        _RULES,
        AfterValidator(_unreserved),
    ] = Field(default_factory=dict)
