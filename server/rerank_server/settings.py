"""Settings of one server process: RERANK_* environment variables, or flags of the same name."""

import argparse
import ipaddress
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import regex
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rerank_server import __version__

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
    "data_parallel_size": f"set {PREFIX}ENGINES_PER_GPU, or start more servers",
    "pipeline_parallel_size": f"set {PREFIX}TENSOR_PARALLEL_SIZE",
}


def _listed(value: Any) -> Any:
    values = [value] if isinstance(value, str) else value
    return [item.strip() for text in values for item in text.split(",") if item.strip()]


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s,*]+", text):
        raise ValueError("an origin is scheme://host or scheme://host:port, or * for all")
    return text


def _lines(value: Any) -> Any:
    values = [value] if isinstance(value, str) else value
    return [line.strip() for text in values for line in text.splitlines() if line.strip()]


def _pattern(text: str) -> str:
    try:
        regex.compile(text)
    except regex.error as error:
        raise ValueError(f"the pattern {text!r} is no regular expression: {error}") from error
    return text


def _token(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("a token has at least one character")
    return secret


# In one variable or flag, one per line: patterns have commas in them.
Patterns = Annotated[
    tuple[Annotated[str, AfterValidator(_pattern)], ...], NoDecode, BeforeValidator(_lines)
]
# In one variable or flag, separated by commas.
Networks = Annotated[
    tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_listed)
]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, BeforeValidator(_listed)
]


class Settings(BaseSettings):
    """Serve one reranker over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
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
    engines_per_gpu: Annotated[
        int,
        Field(
            ge=1,
            le=8,
            description="Engine processes that share the GPU, each with a copy of the model in an "
            "equal part of its memory. More than one pays where the GPU waits for the CPU: small "
            "models with short documents.",
        ),
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
    header_seconds: Annotated[
        int, Field(ge=1, description="Time for a request's headers to arrive.")
    ] = 10
    body_seconds: Annotated[
        int, Field(ge=1, description="Time for a request's body to arrive.")
    ] = 60
    keep_alive_seconds: Annotated[
        int,
        Field(
            ge=1,
            description="Time that a connection stays open without a request. Give more than the "
            "load balancer in front keeps its own.",
        ),
    ] = 75
    max_connections: Annotated[
        int,
        Field(ge=1, description="Open connections; beyond it, those idle longest are closed."),
    ] = 2000
    max_queued_pairs: Annotated[
        int, Field(ge=1, description="Query-document pairs that may wait or run at once.")
    ] = 4096
    api_token: Annotated[
        SecretStr | None,
        AfterValidator(lambda secret: secret and _token(secret)),
        Field(
            description="Token that requests must bring as Authorization: Bearer, except to "
            "/health, /ready, /metrics and /ui; of several, one per line, any will do. Unset: none "
            "is asked for. Prefer the variable: flags show in the list of processes."
        ),
    ] = None
    requests_per_minute_per_client: Annotated[
        int | None,
        Field(
            ge=1,
            description="Requests of one address (IPv6: one /64 network); so many may also come "
            "at once. Unset: no limit.",
        ),
    ] = None
    trusted_proxies: Annotated[
        Networks,
        Field(
            description="Networks of proxies whose X-Forwarded-For is believed, as "
            "10.0.0.0/8,fd00::/8. Unset: a client is who opened the connection."
        ),
    ] = ()
    cors_origins: Annotated[
        Origins,
        Field(
            description="Origins of web pages that may call from a browser, as "
            "https://app.example.com,https://b.example.com, or * for all. Unset: none."
        ),
    ] = ()
    blocked_patterns: Annotated[
        Patterns,
        Field(
            description="Regular expressions, one per line. A request with a text in which one is "
            "found is refused. Unset: none."
        ),
    ] = ()
    host: Annotated[
        str,
        Field(description="Address to listen on; `0.0.0.0` and `::` are all there are."),
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on.")] = 8080
    ui: Annotated[
        bool, Field(description="Serve a page at /ui, on which people can try the service.")
    ] = False
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

    log_dir: Annotated[
        Path | None,
        Field(
            description="Directory for a file of warnings and errors, beside the log on stdout. "
            "Not one that another process writes to. Unset: no file."
        ),
    ] = None

    @property
    def tokens(self) -> list[str]:
        """Every token that is let in; none means that none is asked for."""
        lines = self.api_token.get_secret_value().splitlines() if self.api_token else []
        return [line.strip() for line in lines if line.strip()]

    @field_validator("engines_per_gpu")
    @classmethod
    def _only_on_one_gpu(cls, engines: int, others: ValidationInfo) -> int:
        size = others.data.get("tensor_parallel_size", 1)
        if engines > 1 and size > 1:
            raise ValueError(
                f"RERANK_TENSOR_PARALLEL_SIZE is {size}, and a model that takes several GPUs gives "
                "each enough to do: set one of the two to 1"
            )
        return engines

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


# What --help and docs/server.md call the settings from the named one on.
SECTIONS = {
    "model": "Model",
    "instruction": "Ranking",
    "max_documents": "Limits",
    "api_token": "Access",
    "host": "Server",
    "log_level": "Logs",
}


def flag(name: str) -> str:
    """Return the command line's name of a setting."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """Return the environment's name of a setting."""
    return f"{PREFIX}{name.upper()}"


def default(name: str) -> str:
    """Return a setting's default as a person writes it; empty if its description tells."""
    value = Settings.model_fields[name].get_default()
    if value is None or value == () or Settings.model_fields[name].is_required():
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def read_settings(arguments: Sequence[str]) -> Settings:
    """Read flags, then the environment; a flag wins.

    Raises:
        SystemExit: a value is wrong or missing, told on stderr in one sentence each (code 2),
            or `--help` or `--version` was asked for (code 0).
    """
    given = vars(_parser().parse_args(arguments))
    # Empty elsewhere means unset; here that would open the server to everybody.
    if os.environ.get(variable("api_token"), "token").strip() == "":
        print(
            f"rerank-server: {variable('api_token')} is empty. Give a token, or unset the variable "
            "to serve without one",
            file=sys.stderr,
        )
        raise SystemExit(2)
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        for fault in error.errors():
            print(f"rerank-server: {_sentence(dict(fault))}", file=sys.stderr)
        raise SystemExit(2) from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rerank-server",
        usage="rerank-server --model MODEL [--FLAG VALUE ...]",
        description="Serve one reranker over HTTP. Each flag is also an environment variable "
        "(--max-model-len is RERANK_MAX_MODEL_LEN); the flag wins.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    group = parser.add_argument_group()
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            group = parser.add_argument_group(SECTIONS[name])
        text = field.description or ""
        if field.is_required():
            text += " (required)"
        elif value := default(name):
            text += f" (default: {value})"
        group.add_argument(
            flag(name),
            metavar=_metavar(field.annotation),
            action="append" if isinstance(field.get_default(), tuple) else "store",
            help=text.replace("%", "%%"),
        )
    return parser


def _metavar(annotation: Any) -> str:
    options = get_args(annotation)
    if get_origin(annotation) is Literal:
        return "|".join(options)
    kind = next((option for option in options if option is not NoneType), annotation)
    names = {bool: "true|false", int: "N", float: "X", Path: "DIR", SecretStr: "TOKEN"}
    return names.get(kind, "TEXT")


def _sentence(fault: dict[str, object]) -> str:
    location = fault["loc"]
    field = str(location[0]) if isinstance(location, tuple) and location else ""
    names = f"{variable(field)} ({flag(field)})"
    purpose = Settings.model_fields[field].description if field in Settings.model_fields else ""
    if fault["type"] == "missing":
        return f"{names} is not set. Set it: {purpose}"
    given = "" if field == "api_token" else f" is {fault['input']!r}"
    fault_text = str(fault["msg"]).removeprefix("Value error, ")
    return f"{names}{given}: {fault_text}. Change it: {purpose}"
