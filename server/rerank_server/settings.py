"""Settings of one server process: RERANK_* environment variables, or flags of the same name."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "RERANK_"

# Arguments of vLLM that would take others out of our hands, and what to set instead.
RESERVED = {
    name: f"set {PREFIX}{name.upper()}"
    for name in (
        "dtype",
        "enforce_eager",
        "gpu_memory_utilization",
        "max_model_len",
        "model",
        "quantization",
        "revision",
        "tensor_parallel_size",
        "trust_remote_code",
    )
} | {
    "served_model_name": f"set {PREFIX}SERVED_NAME",
    **{
        name: "it follows from the model and its family"
        for name in ("convert", "hf_config_path", "hf_overrides", "runner", "task", "tokenizer")
    },
    **{
        name: "one engine process is served"
        for name in ("data_parallel_size", "pipeline_parallel_size")
    },
}


class Settings(BaseSettings):
    """Serve one reranker over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        cli_prog_name="rerank-server",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
    )

    model: Annotated[
        str, Field(min_length=1, description="Model directory, or a Hugging Face repository id.")
    ]
    revision: Annotated[
        str | None, Field(description="Commit, branch or tag of the repository.")
    ] = None
    served_name: Annotated[
        str | None,
        Field(description="Model name in answers. Unset: the last path part of the model."),
    ] = None
    family: Annotated[
        str, Field(description="Reranker family; auto reads it from the model's config.json.")
    ] = "auto"
    dtype: Annotated[
        Literal["auto", "half", "bfloat16", "float32"],
        Field(description="Precision of the weights; auto takes the model's own."),
    ] = "auto"
    max_model_len: Annotated[
        int,
        Field(ge=128, description="Tokens of a query-document pair, at most the model's limit."),
    ] = 4096
    tensor_parallel_size: Annotated[
        int, Field(ge=1, description="GPUs the model is spread over.")
    ] = 1
    quantization: Annotated[
        str | None,
        Field(description="vLLM's name of a quantisation. Unset: what config.json says, or none."),
    ] = None
    gpu_memory_utilization: Annotated[
        float, Field(gt=0, le=1, description="Share of the GPU's memory that vLLM may take.")
    ] = 0.9
    enforce_eager: Annotated[
        bool | None,
        Field(description="Skip compilation and CUDA graphs. Unset: true on a CPU, else false."),
    ] = None
    trust_remote_code: Annotated[
        bool, Field(description="Run Python code that comes with the model.")
    ] = False
    engine_args: Annotated[
        dict[str, Any],
        NoDecode,
        Field(description="More arguments for vLLM, as a JSON object by their Python names."),
    ] = {}
    instruction: Annotated[
        str | None,
        Field(description="Instruction of requests that bring none. Unset: the family's own."),
    ] = None
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on.")] = 8080
    drain_seconds: Annotated[
        int, Field(ge=0, description="Longest wait for running requests after SIGTERM.")
    ] = 60
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least level to log.")
    ] = "info"

    @field_validator("engine_args", mode="before")
    @classmethod
    def _read_json(cls, text: object) -> object:
        try:
            return json.loads(text) if isinstance(text, str) else text
        except ValueError as error:
            raise ValueError(f"not JSON ({error})") from error

    @field_validator("engine_args")
    @classmethod
    def _only_what_has_no_setting(cls, engine_args: dict[str, Any]) -> dict[str, Any]:
        for name in engine_args:
            if name in RESERVED:
                raise ValueError(f"{name!r} is not for engine_args: {RESERVED[name]}")
        return engine_args

    @property
    def name(self) -> str:
        """The model name in answers."""
        return self.served_name or self.model.rstrip("/").rsplit("/", 1)[-1]


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read flags, then the environment; a flag wins.

    Raises:
        SystemExit: a value is wrong or missing, told on stderr in one sentence each (code 2),
            or `--help` was asked for (code 0).
    """
    try:
        return Settings(_cli_parse_args=list(arguments))
    except ValidationError as error:
        for fault in error.errors():
            print(f"rerank-server: {_sentence(dict(fault))}", file=sys.stderr)
        raise SystemExit(2) from error


def _sentence(fault: dict[str, object]) -> str:
    location = fault["loc"]
    field = str(location[0]) if isinstance(location, tuple) and location else ""
    names = f"{PREFIX}{field.upper()} (--{field.replace('_', '-')})"
    purpose = Settings.model_fields[field].description if field in Settings.model_fields else ""
    if fault["type"] == "missing":
        return f"{names} is not set. Set it: {purpose}"
    return f"{names} is {fault['input']!r}: {fault['msg']}. Change it: {purpose}"
