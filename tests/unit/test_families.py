import pytest

from checkpoints import ARCHITECTURES
from rerank_server.errors import ModelUnusable
from rerank_server.families import FAMILIES, QWEN3, find_family


def test_original_checkpoint_is_turned_into_a_classifier() -> None:
    family, overrides = find_family("auto", ["Qwen3ForCausalLM"])

    assert family is QWEN3
    assert overrides == {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }


def test_converted_checkpoint_is_taken_as_it_is() -> None:
    assert find_family("auto", ["Qwen3ForSequenceClassification"]) == (QWEN3, {})


@pytest.mark.parametrize("architectures", [[], ["LlamaForCausalLM"]])
def test_unknown_architecture_is_refused_with_the_known_ones(architectures: list[str]) -> None:
    with pytest.raises(ModelUnusable, match="Qwen3ForCausalLM, Qwen3ForSequenceClassification"):
        find_family("auto", architectures)


def test_unknown_family_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelUnusable, match=r"RERANK_FAMILY is 'qwen9'.*qwen3-reranker"):
        find_family("qwen9", ["Qwen3ForCausalLM"])


@pytest.mark.parametrize("name", FAMILIES)
def test_template_has_a_place_for_each_text(name: str) -> None:
    family = FAMILIES[name]

    assert "{query}" in family.question
    assert "{query}" in family.plain_question
    assert "{document}" in family.document
    assert "{" not in family.system + family.between + family.suffix
    assert family.takes_instruction or not family.instruction


def test_architecture_belongs_to_one_family_and_is_compared_with_its_reference() -> None:
    architectures = [name for family in FAMILIES.values() for name in family.architectures]

    assert sorted(architectures) == sorted(ARCHITECTURES)


def test_family_that_is_named_takes_its_own_architectures_alone() -> None:
    with pytest.raises(ModelUnusable, match=r"names one of BertForSequenceClassification$"):
        find_family("bert", ["ElectraForSequenceClassification"])
