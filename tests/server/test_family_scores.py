"""Every family against its reference: sentence-transformers, or the formula of the model card.

One process holds vLLM and loads one small random model after the other: a server apiece would
take a minute each.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from checkpoints import ARCHITECTURES, ROOM, write_model
from in_process_engine import InProcess, vllm_in_this_process
from rerank_server.families import find_family
from rerank_server.ranking import relevance

# torch, vLLM and transformers warn of themselves.
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-3
# Between two batches of one engine.
SAME = 1e-5

QUERY = "What is the capital of France?"
LONG = "The moon moves around the earth. " * 60
DOCUMENTS = [
    "Paris is the capital of France.",
    "Bread is made of flour, water, salt and yeast.",
    "",
    " two  spaces\tand a tab\n\nand    lines\r\n",
    "L'été à Zürich — 東京は日本の首都です。 🙂🏳️‍🌈 \u202eright to left",
    "Москва — столица России. عاصمة مصر هي القاهرة",
    LONG,
]
# Non-Latin questions; one ends in white space, where tokenisers like to join.
QUERIES = [QUERY, "日本の首都はどこですか?\n", "ما هي عاصمة مصر؟ "]

Reference = Callable[[str, Sequence[str]], list[float]]


@pytest.fixture(scope="module")
def vllm() -> Iterator[None]:
    with vllm_in_this_process():
        yield


@pytest.fixture(scope="module", params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(
    architecture: str, tiny_model: Path, vllm: None, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp(architecture)
    write_model(architecture, directory, tiny_model)
    return directory


@pytest.fixture(scope="module")
def wanted(architecture: str, model: Path) -> dict[str, list[float]]:
    """The reference's scores of all documents, by query."""
    family, _ = find_family("auto", [architecture])
    score = cross_encoder(model) if family.joined_by_tokenizer else FORMULAS[family.name](model)
    return {query: score(query, DOCUMENTS) for query in QUERIES}


@pytest.fixture(scope="module")
def engine(model: Path, wanted: dict[str, list[float]]) -> Iterator[InProcess]:
    # After the reference: where vLLM has no network of its own, it changes that of transformers.
    engine = InProcess(model)
    yield engine
    engine.close()


def cross_encoder(model: Path) -> Reference:
    import torch
    from sentence_transformers import CrossEncoder

    encoder = CrossEncoder(
        str(model),
        device="cpu",
        activation_fn=torch.nn.Sigmoid(),
        processor_kwargs={"split_special_tokens": True},
    )
    cut = {"text": {"truncation": "only_second", "max_length": ROOM - 1}}

    def score(query: str, documents: Sequence[str]) -> list[float]:
        pairs = [(query, document) for document in documents]
        return [float(score) for score in encoder.predict(pairs, processing_kwargs=cut)]

    return score


def language_model(
    model: Path, write: Callable[[Any, str, str], list[int]], yes: str, no: str | None
) -> Reference:
    """The logit of one word, or of one less that of the other, as the model's last token has it.

    A converted checkpoint has its one logit from its classifier.
    """
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    tokenizer = AutoTokenizer.from_pretrained(model)
    converted = "ForCausalLM" not in AutoConfig.from_pretrained(model).architectures[0]
    kind = AutoModelForSequenceClassification if converted else AutoModelForCausalLM
    network = kind.from_pretrained(model, dtype=torch.float32).eval()

    def score(query: str, documents: Sequence[str]) -> list[float]:
        scores = []
        for document in documents:
            with torch.no_grad():
                logits = network(torch.tensor([write(tokenizer, query, document)])).logits[0]
            if converted:
                logit = float(logits[0])
            else:
                logit = float(logits[-1, tokenizer.convert_tokens_to_ids(yes)])
                if no is not None:
                    logit -= float(logits[-1, tokenizer.convert_tokens_to_ids(no)])
            scores.append(relevance(logit))
        return scores

    return score


def join(tokenizer: Any, head: str, query: str, document: str, *tail: str) -> list[int]:
    """Tokenise each on its own, and cut the document."""

    def ids(text: str, special: bool) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=special))

    before = ids(head, False) + ids(query, True)
    after = [id for part in tail for id in ids(part, False)]
    return before + ids(document, True)[: ROOM - 1 - len(before) - len(after)] + after


def qwen3(model: Path) -> Reference:
    def write(tokenizer: Any, query: str, document: str) -> list[int]:
        return join(
            tokenizer,
            "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
            'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
            "<|im_end|>\n<|im_start|>user\n",
            "<Instruct>: Given a web search query, retrieve relevant passages that answer the "
            f"query\n<Query>: {query}\n<Document>:",
            f" {document}",
            "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        )

    return language_model(model, write, "yes", "no")


def mxbai(model: Path) -> Reference:
    def write(tokenizer: Any, query: str, document: str) -> list[int]:
        newline = tokenizer.encode("\n", add_special_tokens=False)
        ids = join(
            tokenizer,
            "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
            "assistant.<|im_end|>\n<|im_start|>user\n",
            f"query: {query}",
            "",
        )
        tail = join(
            tokenizer,
            "\n",
            "You are a search relevance expert who evaluates how well documents match search "
            "queries. For each query-document pair, carefully analyze the semantic relationship "
            "between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
            "relevant).\nRelevance:",
            "",
            "<|im_end|>\n<|im_start|>assistant\n",
        )
        body = tokenizer.encode(
            f"document: {document}", add_special_tokens=False, split_special_tokens=True
        )
        room = ROOM - 1 - len(ids) - len(newline) - len(tail)
        return [*ids, *newline, *body[:room], *tail]

    return language_model(model, write, "1", "0")


def bge_gemma(model: Path) -> Reference:
    def write(tokenizer: Any, query: str, document: str) -> list[int]:
        def ids(text: str) -> list[int]:
            return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

        newline = ids("\n")
        prompt = ids(
            "Given a query A and a passage B, determine whether the passage contains an answer to "
            "the query by providing a prediction of either 'Yes' or 'No'."
        )
        head = [tokenizer.convert_tokens_to_ids("<bos>"), *ids(f"A: {query}"), *newline]
        room = ROOM - 1 - len(head) - len(newline) - len(prompt)
        return head + ids(f"B: {document}")[:room] + newline + prompt

    return language_model(model, write, "Yes", None)


FORMULAS = {"qwen3-reranker": qwen3, "mxbai-rerank-v2": mxbai, "bge-reranker-v2-gemma": bge_gemma}


@pytest.mark.parametrize("query", QUERIES)
def test_scores_are_those_of_the_reference(
    query: str, architecture: str, engine: InProcess, wanted: dict[str, list[float]]
) -> None:
    expected = wanted[query]

    scores = engine.scores(query, DOCUMENTS)

    difference = max(abs(a - b) for a, b in zip(scores, expected, strict=True))
    # `pytest -rP` shows what docs/families.md tells.
    print(f"{architecture:40} {difference:.1e}")
    assert scores == pytest.approx(expected, abs=TOLERANCE)
    # Without a spread the line above would say little.
    assert max(expected) - min(expected) > 0.05
    cut = engine.pairs(query, DOCUMENTS).cut
    assert LONG in [DOCUMENTS[index] for index in cut]
    assert 0 not in cut


def test_pair_scores_the_same_alone_shuffled_and_among_200_others(engine: InProcess) -> None:
    others = [f"Document number {number} is about {number % 7} moons." for number in range(200)]
    batch = [*DOCUMENTS, *others]
    order = random.Random(0).sample(range(len(batch)), len(batch))

    alone = [engine.scores(QUERY, [document])[0] for document in DOCUMENTS]
    among = engine.scores(QUERY, batch)
    shuffled = engine.scores(QUERY, [batch[place] for place in order])

    assert among[: len(alone)] == pytest.approx(alone, abs=SAME)
    assert shuffled == pytest.approx([among[place] for place in order], abs=SAME)
