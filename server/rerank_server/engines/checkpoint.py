"""The files of a model: where they are, what they say, whether they make a reranker."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from pydantic import BaseModel, TypeAdapter, ValidationError

from rerank_server.errors import ModelUnusable
from rerank_server.families import Family, find_family
from rerank_server.hub import patterns
from rerank_server.settings import Settings
from rerank_server.tokens import PairTokenizer

log = logging.getLogger(__name__)


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
    # What vLLM is to run it as, the first that it knows.
    architectures: Sequence[str]
    weights: Sequence[Path]
    # What vLLM has to override in config.json.
    overrides: Mapping[str, Any]
    max_model_len: int
    tokenizer: PairTokenizer
    # From golden.json, which a model may bring: the server checks itself against them.
    golden: Sequence[Golden]

    @property
    def is_language_model(self) -> bool:
        """True: there is no classifier in it, vLLM makes one of the answers' weights."""
        return "classifier_from_token" in self.overrides

    @property
    def path(self) -> Path:
        """What vLLM loads: the directory, or in it the one GGUF file."""
        return self.weights[0] if self.weights[0].suffix == ".gguf" else self.directory


def open_checkpoint(settings: Settings) -> Checkpoint:
    """Find the model named in `settings`, downloading it if it is a repository.

    Raises:
        ModelUnusable: it is missing, unreadable or not a reranker we know.
    """
    directory = _directory(settings)
    config = _read_object(directory / "config.json")
    architectures = config.get("architectures") or []
    family, overrides = find_family(settings.family, architectures)
    tokenizer_config = _read_object(directory / "tokenizer_config.json", {})
    max_model_len = min(settings.max_model_len, _limit(family, config, tokenizer_config, directory))
    text = _read(directory / "tokenizer.json")
    try:
        tokenizer = PairTokenizer(
            text,
            family,
            max_model_len,
            settings.instruction,
            token_types=family.token_types and _has_two_types(config, tokenizer_config),
        )
    except ModelUnusable:
        raise
    except Exception as error:
        # The library raises nothing narrower, on a file that anybody may have written.
        raise ModelUnusable(f"{directory}/tokenizer.json is no tokenizer: {error}") from error
    checkpoint = Checkpoint(
        directory,
        overrides.get("architectures", architectures),
        _weights(directory),
        overrides,
        max_model_len,
        tokenizer,
        _read_golden(directory),
    )
    _check_labels(checkpoint, config)
    _check_answers(checkpoint, family)
    told = _check_modules(checkpoint, family) or settings.family != "auto"
    if checkpoint.is_language_model and not told:
        # A chat model of the same architecture looks the same and would be served too.
        log.warning(
            "taking a language model for a reranker",
            extra={"family": family.name, "to_be_sure": f"RERANK_FAMILY={family.name}"},
        )
    return checkpoint


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
            snapshot_download(
                settings.model,
                revision=settings.revision,
                allow_patterns=patterns(settings.trust_remote_code),
            )
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


def _read_object(path: Path, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    if missing is not None and not path.exists():
        return missing
    try:
        content = json.loads(_read(path))
    except ValueError as error:
        raise ModelUnusable(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelUnusable(f"{path} holds no object")
    return content


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


def _limit(
    family: Family,
    config: Mapping[str, Any],
    tokenizer_config: Mapping[str, Any],
    directory: Path,
) -> int:
    """Return the most tokens of a pair that the model takes; vLLM refuses to be told more."""
    positions = config.get("max_position_embeddings")
    if positions and family.positions_after_padding:
        positions -= config.get("pad_token_id", 1) + 1
    sentences = _read_object(directory / "sentence_bert_config.json", {})
    limits = [
        positions,
        tokenizer_config.get("model_max_length"),
        sentences.get("max_seq_length"),
    ]
    return int(min((limit for limit in limits if limit), default=sys.maxsize))


def _has_two_types(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> bool:
    inputs = tokenizer_config.get("model_input_names", ["token_type_ids"])
    return config.get("type_vocab_size", 2) > 1 and "token_type_ids" in inputs


def _weights(directory: Path) -> list[Path]:
    if weights := sorted(directory.glob("*.safetensors")):
        return weights
    weights = sorted(directory.glob("*.gguf"))
    if not weights:
        raise ModelUnusable(
            f"{directory} holds no *.safetensors: the weights are missing, or in a format that "
            "has to be converted first"
        )
    if find_spec("vllm_gguf_plugin") is None:
        raise ModelUnusable(
            f"{weights[0]} needs vLLM's plugin for GGUF: install vllm-gguf-plugin in the image, "
            "or take the model as *.safetensors"
        )
    return weights


def _check_labels(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    # transformers' default is two, of a classifier; a reranker has one score.
    labels = len(config.get("id2label") or {}) or config.get("num_labels", 2)
    if not checkpoint.is_language_model and labels != 1:
        raise ModelUnusable(
            f"{checkpoint.directory} is no reranker: its classifier has {labels} labels, and a "
            "reranker's has one"
        )


def _check_answers(checkpoint: Checkpoint, family: Family) -> None:
    for word in family.answers:
        if checkpoint.tokenizer.token_id(word) is None:
            raise ModelUnusable(
                f"{checkpoint.directory} is not a {family.name}: its tokenizer has no token "
                f"{word!r}"
            )


def _check_modules(checkpoint: Checkpoint, family: Family) -> bool:
    """Compare with what sentence-transformers writes beside a model; True if it confirms `family`.

    An architecture alone does not tell a reranker from an embedding model made from the same
    language model, or from a reranker that wants another template.
    """
    path = checkpoint.directory / "modules.json"
    if not path.exists():
        return False
    confirmed = False
    for module in json.loads(_read(path)):
        kind = module["type"].rsplit(".", 1)[-1]
        if kind == "Pooling":
            raise ModelUnusable(
                f"{checkpoint.directory} is no reranker: its modules.json is that of an embedding "
                "model"
            )
        if kind == "LogitScore":
            score = _read_object(checkpoint.directory / module["path"] / "config.json")
            stated = [score.get("false_token_id"), score.get("true_token_id")]
            ours = [checkpoint.tokenizer.token_id(word) for word in family.answers]
            if [id for id in stated if id is not None] != ours:
                raise ModelUnusable(
                    f"{checkpoint.directory} is not a {family.name}: its {module['path']} names "
                    f"other answers than {' and '.join(family.answers)}"
                )
            confirmed = True
    return confirmed
