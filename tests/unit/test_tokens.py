import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from checkpoints import TOKENIZERS
from rerank_server.errors import BadRequest, ModelUnusable
from rerank_server.families import BERT, BGE_GEMMA, FAMILIES, MXBAI, QWEN3
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
    "    ",
    "\u0000",
    "\u00a0",
    "▁",
    "ﬁ",
    "\u0301",
    "عاصمة",
]

# Names of special tokens in the tokenizers of the families; to us they are text.
NAMES = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<pad>", "<unk>", "<mask>"]
NAMES += ["<bos>", "<eos>", "<|im_end|>"]

JOINED = [name for name in TOKENIZERS if FAMILIES[name].joined_by_tokenizer]


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


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return {name: make().to_str() for name, make in TOKENIZERS.items()}


def texts(count: int, pieces: list[str]) -> list[str]:
    chance = random.Random(2)
    return ["".join(chance.choices(pieces, k=chance.randrange(14))) for _ in range(count)]


@pytest.mark.parametrize("name", JOINED)
def test_cross_encoder_pairs_are_those_of_the_tokenizer(name: str, made: dict[str, str]) -> None:
    reference = Tokenizer.from_str(made[name])
    reference.no_padding()
    # One less than our limit, like ours.
    reference.enable_truncation(29, strategy="only_second")
    pairs = PairTokenizer(made[name], FAMILIES[name], 30, None, token_types=name == "bert")
    cut = 0

    for query, document in zip(texts(800, PIECES)[::2], texts(800, PIECES)[1::2], strict=True):
        try:
            prompts, shortened = encode(pairs, query, [document], None)
        except BadRequest:
            continue
        cut += len(shortened)

        expected = reference.encode(query, document)
        assert prompts[0].ids == expected.ids, (query, document)
        if name == "bert":
            second = expected.type_ids.index(1)
            assert prompts[0].second_type_at == second
            assert expected.type_ids == [0] * second + [1] * (len(expected.ids) - second)
    assert cut


@pytest.mark.parametrize("name", TOKENIZERS)
def test_special_tokens_in_user_text_stay_text(name: str, made: dict[str, str]) -> None:
    reference = Tokenizer.from_str(made[name])
    special = {
        id for id, token in reference.get_added_tokens_decoder().items() if token.special
    } - {reference.token_to_id("[UNK]"), reference.token_to_id("<unk>")}
    pairs = PairTokenizer(made[name], FAMILIES[name], 4000, None)
    plain = encode(pairs, "q", ["d"], None).prompts[0].ids
    allowed = sorted(id for id in plain if id in special)

    for query, document in zip(texts(200, NAMES), texts(200, NAMES + PIECES), strict=True):
        ids = encode(pairs, query, [document], None).prompts[0].ids

        assert sorted(id for id in ids if id in special) == allowed, (query, document)


@pytest.mark.parametrize("text", ["a\n\nb", "  a", "<table>"])
def test_added_tokens_that_are_not_special_keep_their_meaning(
    text: str, made: dict[str, str]
) -> None:
    reference = Tokenizer.from_str(made["bge-reranker-v2-gemma"])
    pairs = PairTokenizer(made["bge-reranker-v2-gemma"], BGE_GEMMA, 4000, None)

    [prompt] = encode(pairs, "q", [text], None).prompts

    expected = reference.encode(f"B: {text}", add_special_tokens=False).ids
    assert str(expected)[1:-1] in str(prompt.ids)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_keeps_its_ids_without_the_special_tokens(name: str, made: dict[str, str]) -> None:
    reference = Tokenizer.from_str(made[name])
    reference.no_truncation()
    reference.no_padding()
    pairs = PairTokenizer(made[name], FAMILIES[name], 4000, None)

    for text in texts(400, PIECES):
        template = FAMILIES[name].document.format(document=text)

        [prompt] = encode(pairs, "q", [text], None).prompts

        expected = reference.encode(template, add_special_tokens=False).ids
        assert str(expected)[1:-1] in str(prompt.ids), text


def test_instruction_is_left_out_where_there_is_none(tokenizer_json: str) -> None:
    pairs = PairTokenizer(tokenizer_json, MXBAI, 256, None)
    reference = Tokenizer.from_str(tokenizer_json)

    without, with_one = (encode(pairs, "q", ["d"], text).prompts[0] for text in (None, "i"))

    head = MXBAI.system + "query: q"
    assert without.ids[: len(reference.encode(head).ids)] == reference.encode(head).ids
    head = MXBAI.system + "instruction: i\nquery: q"
    assert with_one.ids[: len(reference.encode(head).ids)] == reference.encode(head).ids


def test_instruction_that_has_no_place_is_refused(made: dict[str, str]) -> None:
    pairs = PairTokenizer(made["bert"], BERT, 256, None)

    with pytest.raises(BadRequest, match="instruction is set, and this model takes none"):
        pairs.question("q", "Find recipes")
    with pytest.raises(ModelUnusable, match=r"RERANK_INSTRUCTION is set.*bert takes none"):
        PairTokenizer(made["bert"], BERT, 256, "Find recipes")


def test_tokenizer_that_joins_no_pairs_is_refused(tokenizer_json: str) -> None:
    with pytest.raises(ModelUnusable, match="puts nothing between two texts"):
        PairTokenizer(tokenizer_json, BERT, 256, None)
