"""What is refused before vLLM is even imported, and how it is said."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from checkpoints import TOKENIZERS, write_tokenizer
from rerank_server.engines.checkpoint import Checkpoint, open_checkpoint
from rerank_server.errors import ModelUnusable
from rerank_server.settings import Settings


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def edit_config(model: Path, **fields: Any) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(model: Path | str, **settings: Any) -> str:
    with pytest.raises(ModelUnusable) as caught:
        open_checkpoint(Settings(model=str(model), **settings))
    return str(caught.value)


def cross_encoder(directory: Path, family: str, **config: Any) -> Checkpoint:
    """Open a model of which only the weights are missing."""
    write_tokenizer(TOKENIZERS[family](), directory, ["token_type_ids"])
    (directory / "config.json").write_text(json.dumps({"id2label": {"0": "LABEL_0"}} | config))
    (directory / "model.safetensors").touch()
    return open_checkpoint(Settings(model=str(directory)))


def second_type_at(checkpoint: Checkpoint) -> int | None:
    tokenizer = checkpoint.tokenizer
    return tokenizer.pairs(tokenizer.question("q", None), ["d"]).prompts[0].second_type_at


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


def test_positions_of_roberta_start_after_padding(tmp_path: Path) -> None:
    checkpoint = cross_encoder(
        tmp_path,
        "xlm-roberta",
        architectures=["XLMRobertaForSequenceClassification"],
        max_position_embeddings=514,
        pad_token_id=1,
    )

    assert checkpoint.max_model_len == 512


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("tokenizer_config.json", "model_max_length"),
        ("sentence_bert_config.json", "max_seq_length"),
    ],
)
def test_length_is_capped_to_that_of_the_files_beside(name: str, field: str, model: Path) -> None:
    (model / name).write_text(json.dumps({field: 200}))

    assert open_checkpoint(Settings(model=str(model))).max_model_len == 200


@pytest.mark.parametrize(("types", "expected"), [({}, 3), ({"type_vocab_size": 1}, None)])
def test_bert_gets_the_types_it_has(
    types: dict[str, int], expected: int | None, tmp_path: Path
) -> None:
    checkpoint = cross_encoder(
        tmp_path, "bert", architectures=["BertForSequenceClassification"], **types
    )

    assert second_type_at(checkpoint) == expected


def test_tokenizer_that_gives_no_types_is_believed(tmp_path: Path) -> None:
    cross_encoder(tmp_path, "bert", architectures=["BertForSequenceClassification"])
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"model_input_names": ["input_ids", "attention_mask"]}))

    assert second_type_at(open_checkpoint(Settings(model=str(tmp_path)))) is None


def test_embedding_model_is_no_reranker(model: Path) -> None:
    modules = [{"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"}]
    (model / "modules.json").write_text(json.dumps(modules))

    assert "its modules.json is that of an embedding model" in refusal(model)


def test_reranker_with_other_answers_is_not_taken_for_ours(model: Path) -> None:
    path = model / "1_LogitScore" / "config.json"
    path.write_text(json.dumps({"true_token_id": 7, "false_token_id": None}))

    assert "is not a qwen3-reranker: its 1_LogitScore names other answers" in refusal(model)


def test_language_model_that_nothing_vouches_for_is_told(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_checkpoint(Settings(model=str(model)))
    vouched = list(caplog.messages)
    (model / "modules.json").unlink()
    open_checkpoint(Settings(model=str(model), family="qwen3-reranker"))
    named = list(caplog.messages)

    open_checkpoint(Settings(model=str(model)))

    assert vouched == named == []
    assert caplog.messages == ["taking a language model for a reranker"]


def test_gguf_without_its_plugin_names_it(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model.gguf")

    assert "install vllm-gguf-plugin in the image" in refusal(model)


def test_instruction_for_a_model_that_takes_none_is_refused(tmp_path: Path) -> None:
    cross_encoder(tmp_path, "bert", architectures=["BertForSequenceClassification"])

    assert "takes none: unset it" in refusal(tmp_path, instruction="Find recipes")
