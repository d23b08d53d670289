import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from rerank_server.errors import BadRequest
from rerank_server.families import QWEN3
from rerank_server.tokens import Pairs, PairTokenizer

# Pieces at which a tokeniser splits, or might not.
PIECES = [
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "a",
    "Paris",
    "'s",
    "é",
    "東京",
    "🙂",
    "12",
    ".",
    "?!",
    "<",
    ">:",
]


@pytest.fixture(scope="module")
def tokenizer_json(tiny_model: Path) -> str:
    return (tiny_model / "tokenizer.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pairs(tokenizer_json: str) -> PairTokenizer:
    return PairTokenizer(tokenizer_json, QWEN3, 256, None)


def encode(
    pairs: PairTokenizer, query: str, documents: list[str], instruction: str | None
) -> Pairs:
    return pairs.pairs(pairs.question(query, instruction), documents)


def whole(instruction: str, query: str, document: str) -> str:
    """The template as the model's own documentation writes it."""
    return (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        f"<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
        "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )


def test_parts_give_the_ids_of_the_whole(pairs: PairTokenizer, tokenizer_json: str) -> None:
    reference = Tokenizer.from_str(tokenizer_json)
    chance = random.Random(1)
    texts = ["".join(chance.choices(PIECES, k=chance.randrange(12))) for _ in range(600)]

    for query, document, instruction in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        ids = encode(pairs, query, [document], instruction or "x").prompts[0].ids

        expected = reference.encode(whole(instruction or "x", query, document)).ids
        assert ids == expected, (instruction, query, document)


def test_request_without_instruction_gets_the_default(
    pairs: PairTokenizer, tokenizer_json: str
) -> None:
    service = PairTokenizer(tokenizer_json, QWEN3, 256, "Find recipes")

    assert encode(pairs, "q", ["d"], None) == encode(pairs, "q", ["d"], QWEN3.instruction)
    assert encode(service, "q", ["d"], None) == encode(pairs, "q", ["d"], "Find recipes")
    assert encode(service, "q", ["d"], "Find laws") == encode(pairs, "q", ["d"], "Find laws")


@pytest.mark.parametrize(
    "token", ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "</think>"]
)
def test_template_tokens_in_user_text_stay_text(
    token: str, pairs: PairTokenizer, tokenizer_json: str
) -> None:
    special = Tokenizer.from_str(tokenizer_json).token_to_id(token)
    assert special is not None
    plain = encode(pairs, "q", ["d"], "i").prompts[0].ids

    forged = encode(pairs, f"q{token}", [f"d{token}"], f"i{token}").prompts[0].ids

    assert forged.count(special) == plain.count(special)


def test_braces_in_user_text_stay_text(pairs: PairTokenizer) -> None:
    assert encode(pairs, "{document}", ["{query} {0}"], "{").prompts[0].ids


def test_over_long_document_keeps_prefix_and_suffix(pairs: PairTokenizer) -> None:
    short = encode(pairs, "q", ["a"], None).prompts[0].ids
    suffix = short[-9:]

    prompts, cut = encode(pairs, "q", ["a", "word " * 500], None)

    assert cut == [1]
    assert prompts[0].ids == short
    assert len(prompts[1].ids) == 255
    assert prompts[1].ids[-9:] == suffix
    assert prompts[1].ids[:60] == short[:60]


def test_document_that_just_fits_is_not_cut(pairs: PairTokenizer) -> None:
    used = len(encode(pairs, "q", ["a"], None).prompts[0].ids) - 1

    prompts, cut = encode(
        pairs, "q", [" ".join("a" * (255 - used)), " ".join("a" * (256 - used))], None
    )

    assert [len(prompt.ids) for prompt in prompts] == [255, 255]
    assert cut == [1]


def test_query_without_room_for_a_document_is_refused(pairs: PairTokenizer) -> None:
    with pytest.raises(BadRequest, match="limit of 256 tokens"):
        encode(pairs, "word " * 300, ["a"], None)


def test_empty_document_is_a_pair_too(pairs: PairTokenizer) -> None:
    prompts, _ = encode(pairs, "q", ["", "a"], None)

    assert len(prompts) == 2
    assert prompts[0] != prompts[1]
