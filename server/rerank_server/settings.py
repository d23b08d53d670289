"""Settings of one server process: RERANK_* environment variables, or flags of the same name."""

import ipaddress
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "RERANK_"


def _listed(value: Any) -> Any:
    return (
        [item.strip() for item in value.split(",") if item.strip()]
        if isinstance(value, str)
        else value
    )


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s,*]+", text):
        raise ValueError("an origin is scheme://host or scheme://host:port, or * for all")
    return text


def _token(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().strip():
        raise ValueError("a token has at least one character")
    return secret


# In one environment variable or flag, separated by commas.
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
    api_token: Annotated[
        SecretStr | None,
        AfterValidator(lambda secret: secret and _token(secret)),
        Field(
            description="Token that requests must bring as Authorization: Bearer, except to "
            "/health, /ready and /metrics; of several, one per line, any will do. Unset: none "
            "is asked for. Prefer the variable: flags show in the list of processes."
        ),
    ] = None
    cors_origins: Annotated[
        Origins,
        Field(
            description="Origins of web pages that may call from a browser, as "
            "https://app.example.com,https://b.example.com, or * for all. Unset: none."
        ),
    ] = ()
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

    log_dir: Annotated[
        Path | None,
        Field(
            description="Directory for a file of warnings and errors, beside the log on stdout; "
            "one process each. Unset: no file."
        ),
    ] = None

    @property
    def tokens(self) -> list[str]:
        """Every token that is let in; none means that none is asked for."""
        lines = self.api_token.get_secret_value().splitlines() if self.api_token else []
        return [line.strip() for line in lines if line.strip()]

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
    # Empty elsewhere means unset; here that would open the server to everybody.
    if os.environ.get(f"{PREFIX}API_TOKEN", "token").strip() == "":
        print(
            f"rerank-server: {PREFIX}API_TOKEN is empty. Give a token, or unset the variable to "
            "serve without one",
            file=sys.stderr,
        )
        raise SystemExit(2)
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
    if field == "api_token":
        return f"{names}: {fault['msg']}. Change it: {purpose}"
    return f"{names} is {fault['input']!r}: {fault['msg']}. Change it: {purpose}"
