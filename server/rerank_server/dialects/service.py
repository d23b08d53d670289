"""What the server tells of itself, in the forms in which clients ask.

Source: https://platform.openai.com/docs/api-reference/models/list,
https://huggingface.github.io/text-embeddings-inference.
"""

from typing_extensions import TypedDict


class Model(TypedDict):
    """The one model served. `max_model_len` is in tokens of a pair, as in vLLM."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int


class Models(TypedDict):
    """OpenAI's list of models."""

    object: str
    data: list[Model]


class Reranker(TypedDict):
    """How a reranker tells Text Embeddings Inference's clients that it is one."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(TypedDict):
    """What the model does: TEI knows others."""

    reranker: Reranker


class Info(TypedDict):
    """TEI's description of a server: limits are in tokens of a pair and documents of a request.

    `auto_truncate` tells whether longer documents are cut; else they are refused.
    """

    model_id: str
    model_sha: str | None
    model_dtype: str
    model_type: ModelType
    max_input_length: int
    max_client_batch_size: int
    auto_truncate: bool
    version: str


def models(name: str, created: int, max_model_len: int) -> Models:
    """List the one model; `created` is in seconds since 1970."""
    model: Model = {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "rerank-server",
        "max_model_len": max_model_len,
    }
    return {"object": "list", "data": [model]}


RERANKER: ModelType = {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
