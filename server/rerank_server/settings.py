"""Settings of one server process: RERANK_* environment variables, or flags of the same name."""

import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "RERANK_"


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
    strict_model_name: Annotated[
        bool, Field(description="Refuse requests that name another model; else any name will do.")
    ] = False
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
    gpu_memory_utilization: Annotated[
        float, Field(gt=0, le=1, description="Share of the GPU's memory that vLLM may take.")
    ] = 0.9
    enforce_eager: Annotated[
        bool | None,
        Field(description="Skip compilation and CUDA graphs. Unset: true on a CPU, else false."),
    ] = None
    instruction: Annotated[
        str | None,
        Field(description="Instruction of requests that bring none. Unset: the family's own."),
    ] = None
    truncate: Annotated[
        bool, Field(description="Cut documents that are too long for the model; else refuse them.")
    ] = True
    score_check: Annotated[
        Literal["warn", "enforce"],
        Field(description="What to do when the model orders easy pairs wrongly."),
    ] = "warn"
    max_documents: Annotated[int, Field(ge=1, description="Documents of one request.")] = 1000
    max_document_chars: Annotated[int, Field(ge=1, description="Characters of one document.")] = (
        100_000
    )
    max_query_chars: Annotated[
        int, Field(ge=1, description="Characters of the query, and of the instruction.")
    ] = 20_000
    max_body_bytes: Annotated[int, Field(ge=1024, description="Bytes of a request's body.")] = (
        16 * 2**20
    )
    body_seconds: Annotated[
        int, Field(ge=1, description="Time for a request's body to arrive.")
    ] = 60
    max_queued_pairs: Annotated[
        int, Field(ge=1, description="Query-document pairs that may wait or run at once.")
    ] = 4096
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on.")] = 8080
    drain_seconds: Annotated[
        int, Field(ge=0, description="Longest wait for running requests after SIGTERM.")
    ] = 60
    stall_seconds: Annotated[
        int,
        Field(ge=1, description="Failed health after so long without progress on waiting work."),
    ] = 120
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Field(description="Least level to log.")
    ] = "info"

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
