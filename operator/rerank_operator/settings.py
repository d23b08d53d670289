"""Operator settings: RERANK_OPERATOR_* environment variables."""

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from rerank_operator import __version__

_REGISTRY = "ghcr.io/rerank-dev"


class Settings(BaseSettings):
    """One per process, read at start and handed down."""

    model_config = SettingsConfigDict(env_prefix="RERANK_OPERATOR_", frozen=True)

    namespaces: Annotated[
        tuple[str, ...],
        NoDecode,
        Field(description="Namespaces to watch, separated by commas; empty means all of them."),
    ] = ()
    server_image: Annotated[
        str, Field(min_length=1, description="Image of model servers on an accelerator.")
    ] = f"{_REGISTRY}/rerank-server:{__version__}"
    server_image_cpu: Annotated[
        str, Field(min_length=1, description="Image of model servers with accelerator `none`.")
    ] = f"{_REGISTRY}/rerank-server-cpu:{__version__}"
    image_pull_policy: Annotated[
        Literal["Always", "IfNotPresent", "Never"],
        Field(description="Pull policy of the model servers' image."),
    ] = "IfNotPresent"
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], Field(description="Least level logged.")
    ] = "INFO"
    lease: Annotated[
        str,
        Field(
            pattern=r"^([a-z0-9-]{1,63}/[a-z0-9.-]{1,253})?$",
            description="namespace/name of the Lease that lets one of several operators write; "
            "empty for an operator that is alone.",
        ),
    ] = ""
    health_port: Annotated[
        int, Field(ge=0, le=65535, description="Port of /healthz and /readyz; 0 serves none.")
    ] = 8080
    metrics_port: Annotated[
        int, Field(ge=0, le=65535, description="Port of /metrics; 0 serves none.")
    ] = 8081
    workers: Annotated[int, Field(ge=1, le=64, description="Objects worked on at once.")] = 8
    resync_seconds: Annotated[
        float, Field(ge=10, description="Time between two full listings of what is watched.")
    ] = 600

    @field_validator("namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value
