"""The files of a model: where they are, what they say, whether they make a reranker."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import BaseModel, TypeAdapter, ValidationError

from rerank_server.errors import ModelUnusable
from rerank_server.families import Family, find_family
from rerank_server.settings import Settings
from rerank_server.tokens import PairTokenizer

# Weights in the one format vLLM takes first, and every small file beside them. A repository
# often holds the same weights again for other libraries.
DOWNLOADS = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


class Golden(BaseModel):
    """A pair with the score it has in 32 bits."""

    query: str
    document: str
    instruction: str | None = None
    score: float


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk that a known family can serve."""

    directory: Path
    # What vLLM has to override in config.json.
    overrides: Mapping[str, object]
    max_model_len: int
    tokenizer: PairTokenizer
    # From golden.json, which a model may bring: the server checks itself against them.
    golden: Sequence[Golden]


def open_checkpoint(settings: Settings) -> Checkpoint:
    """Find the model named in `settings`, downloading it if it is a repository.

    Raises:
        ModelUnusable: it is missing, unreadable or not a reranker we know.
    """
    directory = _directory(settings)
    config = _read_config(directory)
    family, overrides = find_family(settings.family, config.get("architectures") or [])
    # In a list only when the model's own limit is given.
    limits = [settings.max_model_len, config.get("max_position_embeddings")]
    max_model_len = min(limit for limit in limits if limit)
    text = _read(directory / "tokenizer.json")
    try:
        tokenizer = PairTokenizer(text, family, max_model_len, settings.instruction)
    except Exception as error:
        # The library raises nothing narrower, on a file that anybody may have written.
        raise ModelUnusable(f"{directory}/tokenizer.json is no tokenizer: {error}") from error
    _check(directory, config, family, overrides, tokenizer)
    return Checkpoint(directory, overrides, max_model_len, tokenizer, _read_golden(directory))


def _directory(settings: Settings) -> Path:
    path = Path(settings.model)
    if path.is_dir():
        return path
    if path.is_absolute() or settings.model.startswith("."):
        raise ModelUnusable(
            f"RERANK_MODEL is {settings.model}, and there is no such directory: mount the model "
            "there, or give a Hugging Face repository id"
        )
    try:
        return Path(
            snapshot_download(settings.model, revision=settings.revision, allow_patterns=DOWNLOADS)
        )
    except HFValidationError as error:
        raise ModelUnusable(
            f"RERANK_MODEL is {settings.model!r}, which is neither a directory nor a repository "
            "id such as Qwen/Qwen3-Reranker-0.6B"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        at = f" at revision {settings.revision}" if settings.revision else ""
        raise ModelUnusable(
            f"cannot download {settings.model}{at} ({type(error).__name__}): check the name and "
            "revision, HF_TOKEN if the repository is private, and the way to HF_ENDPOINT; or "
            "give a directory"
        ) from error


def _read_config(directory: Path) -> dict[str, Any]:
    try:
        config = json.loads(_read(directory / "config.json"))
    except ValueError as error:
        raise ModelUnusable(f"{directory}/config.json is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelUnusable(f"{directory}/config.json holds no object")
    return config


def _read_golden(directory: Path) -> list[Golden]:
    path = directory / "golden.json"
    if not path.exists():
        return []
    try:
        return TypeAdapter(list[Golden]).validate_json(_read(path))
    except ValidationError as error:
        raise ModelUnusable(
            f"{path} is no list of objects with query, document and score: {error}"
        ) from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelUnusable(
            f"cannot read {path} ({type(error).__name__}): the model directory needs config.json, "
            "tokenizer.json and the weights as *.safetensors"
        ) from error


def _check(
    directory: Path,
    config: Mapping[str, Any],
    family: Family,
    overrides: Mapping[str, object],
    tokenizer: PairTokenizer,
) -> None:
    if not any(directory.glob("*.safetensors")):
        raise ModelUnusable(f"{directory} holds no *.safetensors: the weights are missing")
    # transformers' default is two, of a classifier; a reranker has one score.
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if not overrides and labels != 1:
        raise ModelUnusable(f"{directory} is no reranker: its classifier has {labels} labels")
    for word in family.answers:
        if not tokenizer.is_token(word):
            raise ModelUnusable(
                f"{directory} is not a {family.name}: its tokenizer has no token {word!r}"
            )
