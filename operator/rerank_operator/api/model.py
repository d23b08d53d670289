"""`spec.model`: which model is served, and where it comes from."""

from typing import Annotated, Literal

from pydantic import Field

from rerank_operator.api.schema import ApiModel, Matches, SecretKey

MODEL_NAME = (
    r"^([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
    r"|(/([A-Za-z0-9_-]|\.[A-Za-z0-9_-])[A-Za-z0-9._-]*)+)$"
)

Family = Literal[
    "auto",
    "bert",
    "bge-reranker-v2-gemma",
    "modernbert",
    "electra",
    "mxbai-rerank-v2",
    "qwen3-reranker",
    "roberta",
    "xlm-roberta",
]


class ModelSource(ApiModel):
    """Which model to serve."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=256,
            description="Hub repository (org/name), or an absolute directory in the image or on a "
            "volume of podTemplate.",
        ),
        Matches(
            "model.name",
            MODEL_NAME,
            "write a hub repository as org/name, or an absolute directory in the image "
            "such as /models/tiny-reranker, without '..'",
        ),
    ]
    revision: Annotated[
        str | None,
        Field(
            max_length=128,
            description="Branch, tag or commit of the repository. Unset: its default branch.",
        ),
        Matches(
            "model.revision",
            r"^[A-Za-z0-9][A-Za-z0-9._/-]*$",
            "write a branch, tag or commit, such as main, v1.0 or refs/pr/1",
        ),
    ] = None
    family: Annotated[
        Family,
        Field(description="Kind of reranker. auto: told from the model's own configuration."),
    ] = "auto"
    served_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=256,
            description="Model name in answers. Unset: the last part of `name`.",
        ),
    ] = None
    strict_name: Annotated[
        bool,
        Field(
            description="Refuse requests that name another model than `servedName`. False: "
            "whatever name a request has, this model answers."
        ),
    ] = False
    hub_endpoint: Annotated[
        str | None,
        Field(
            max_length=512,
            description="URL of a mirror of the Hugging Face hub. Unset: https://huggingface.co.",
        ),
        Matches(
            "model.hubEndpoint",
            r"^https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~/-]*)?$",
            "write a URL such as https://hub.example.com, without user, query or fragment",
        ),
    ] = None
    token_secret_ref: Annotated[
        SecretKey | None,
        Field(
            description="Where the hub's access token is, for gated and private models. It is read "
            "when a pod starts. Unset: no token is sent."
        ),
    ] = None
    trust_remote_code: Annotated[
        bool,
        Field(
            description="Let the model's repository bring Python code, which then runs in the pod "
            "with all that the pod may do. Pin `revision` with it."
        ),
    ] = False
