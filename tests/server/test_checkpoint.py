"""What is refused before vLLM is even imported, and how it is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rerank_server.engines.checkpoint import open_checkpoint
from rerank_server.errors import ModelUnusable
from rerank_server.settings import Settings


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def edit_config(model: Path, **fields: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(model: Path | str) -> str:
    with pytest.raises(ModelUnusable) as caught:
        open_checkpoint(Settings(model=str(model)))
    return str(caught.value)


def test_directory_is_opened(model: Path) -> None:
    checkpoint = open_checkpoint(Settings(model=str(model)))

    assert checkpoint.directory == model
    assert checkpoint.max_model_len == 512
    assert checkpoint.overrides["is_original_qwen3_reranker"] is True


def test_length_is_capped_to_the_limit_of_the_model(model: Path) -> None:
    edit_config(model, max_position_embeddings=256)

    assert open_checkpoint(Settings(model=str(model))).max_model_len == 256


def test_missing_directory_says_to_mount_it(tmp_path: Path) -> None:
    assert "no such directory: mount the model there" in refusal(tmp_path / "nothing")


def test_name_that_is_neither_directory_nor_repository_is_refused() -> None:
    assert "neither a directory nor a repository id" in refusal("a/b/c")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(name: str, model: Path) -> None:
    (model / name).unlink()

    assert name.removeprefix("model") in refusal(model)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_broken_file_is_named(name: str, model: Path) -> None:
    (model / name).write_text("{")

    assert name in refusal(model)


def test_other_architecture_is_refused_with_the_known_ones(model: Path) -> None:
    edit_config(model, architectures=["LlamaForCausalLM"])

    assert "LlamaForCausalLM, which is no known reranker" in refusal(model)
    assert "Qwen3ForSequenceClassification" in refusal(model)


def test_classifier_of_several_labels_is_no_reranker(model: Path) -> None:
    edit_config(model, architectures=["Qwen3ForSequenceClassification"], num_labels=3)

    assert "its classifier has 3 labels" in refusal(model)


def test_tokenizer_without_the_answers_is_no_reranker(model: Path) -> None:
    path = model / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["merges"] = [
        merge for merge in tokenizer["model"]["merges"] if "".join(merge) != "yes"
    ]
    tokenizer["model"]["vocab"]["unused"] = tokenizer["model"]["vocab"].pop("yes")
    path.write_text(json.dumps(tokenizer))

    assert "its tokenizer has no token 'yes'" in refusal(model)
