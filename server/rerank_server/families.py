"""What differs between reranker families, as data.

A family is one entry in FAMILIES; nothing else in the server knows a model by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rerank_server.errors import ModelUnusable


@dataclass(frozen=True)
class Family:
    """One kind of reranker: how a pair is written, and what vLLM must be told.

    A pair is `system`, `question`, `between`, `document` and `suffix`, each tokenised on its own.
    Special tokens are possible in `system`, `between` and `suffix`; `question` and `document` hold
    the caller's text in the places `{instruction}`, `{query}` and `{document}`. The score is the
    sigmoid of the one logit that vLLM gives.
    """

    name: str
    # By architecture in config.json: what to override in it for vLLM.
    architectures: Mapping[str, Mapping[str, Any]]
    # The tokenizer itself joins the two texts, mostly as [CLS] query [SEP] document [SEP]:
    # `system`, `between` and `suffix` are then its own.
    joined_by_tokenizer: bool = False
    system: str = ""
    question: str = "{query}"
    # For a request without an instruction, where the family has no default.
    plain_question: str = "{query}"
    between: str = ""
    document: str = "{document}"
    suffix: str = ""
    # The default; empty: none.
    instruction: str = ""
    # Words that a language model answers with, each one token: no before yes, or yes alone.
    answers: Sequence[str] = ()
    # The document's tokens are of type 1, if the model has two types.
    token_types: bool = False
    # Positions are counted from the padding token's id on, so the model takes fewer tokens than it
    # has positions: 512 of 514.
    positions_after_padding: bool = False

    @property
    def takes_instruction(self) -> bool:
        """False: no place for one."""
        return "{instruction}" in self.question


# Template and default instruction: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
# Overrides, here and below: https://docs.vllm.ai/en/latest/models/pooling_models/scoring.html
QWEN3 = Family(
    name="qwen3-reranker",
    architectures={
        # The original checkpoint is a language model: the logit is yes minus no.
        "Qwen3ForCausalLM": {
            "architectures": ["Qwen3ForSequenceClassification"],
            "classifier_from_token": ["no", "yes"],
            "is_original_qwen3_reranker": True,
        },
        # A converted one holds that difference as a classifier of one label.
        "Qwen3ForSequenceClassification": {},
    },
    system=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
        'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
        "<|im_end|>\n<|im_start|>user\n"
    ),
    question="<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",
    document=" {document}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
    answers=("no", "yes"),
)

# https://github.com/mixedbread-ai/mxbai-rerank, class MxbaiRerankV2
MXBAI = Family(
    name="mxbai-rerank-v2",
    architectures={
        "Qwen2ForCausalLM": {
            "architectures": ["Qwen2ForSequenceClassification"],
            "classifier_from_token": ["0", "1"],
            "method": "from_2_way_softmax",
        },
        "Qwen2ForSequenceClassification": {},
    },
    system=(
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
        "assistant.<|im_end|>\n<|im_start|>user\n"
    ),
    question="instruction: {instruction}\nquery: {query}",
    plain_question="query: {query}",
    between="\n",
    document="document: {document}",
    suffix=(
        "\nYou are a search relevance expert who evaluates how well documents match search "
        "queries. For each query-document pair, carefully analyze the semantic relationship "
        "between them, then provide your binary relevance judgment (0 for not relevant, 1 for "
        "relevant).\nRelevance:<|im_end|>\n<|im_start|>assistant\n"
    ),
    answers=("0", "1"),
)

# https://huggingface.co/BAAI/bge-reranker-v2-gemma
BGE_GEMMA = Family(
    name="bge-reranker-v2-gemma",
    architectures={
        "GemmaForCausalLM": {
            "architectures": ["GemmaForSequenceClassification"],
            "classifier_from_token": ["Yes"],
            "method": "no_post_processing",
        },
        "GemmaForSequenceClassification": {},
    },
    system="<bos>",
    question="A: {query}",
    plain_question="A: {query}",
    between="\n",
    document="B: {document}",
    suffix=(
        "\nGiven a query A and a passage B, determine whether the passage contains an answer "
        "to the query by providing a prediction of either 'Yes' or 'No'."
    ),
    answers=("Yes",),
)

# Cross-encoders: https://sbert.net/docs/cross_encoder/pretrained_models.html
BERT = Family(
    "bert", {"BertForSequenceClassification": {}}, joined_by_tokenizer=True, token_types=True
)
ELECTRA = Family(
    "electra", {"ElectraForSequenceClassification": {}}, joined_by_tokenizer=True, token_types=True
)
ROBERTA = Family(
    "roberta",
    {
        "RobertaForSequenceClassification": {},
        # RoBERTa by another name; under its own, vLLM counts its positions from zero.
        "CamembertForSequenceClassification": {
            "architectures": ["RobertaForSequenceClassification"]
        },
    },
    joined_by_tokenizer=True,
    positions_after_padding=True,
)
XLM_ROBERTA = Family(
    "xlm-roberta",
    {"XLMRobertaForSequenceClassification": {}, "XLMRobertaXLForSequenceClassification": {}},
    joined_by_tokenizer=True,
    positions_after_padding=True,
)
MODERNBERT = Family(
    "modernbert", {"ModernBertForSequenceClassification": {}}, joined_by_tokenizer=True
)

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (QWEN3, MXBAI, BGE_GEMMA, BERT, ELECTRA, ROBERTA, XLM_ROBERTA, MODERNBERT)
}


def find_family(name: str, architectures: Sequence[str]) -> tuple[Family, Mapping[str, Any]]:
    """Return the family of a model and the vLLM overrides for its architecture.

    `name` is a family or `auto`; `architectures` is the list in the model's config.json.

    Raises:
        ModelUnusable: no family by that name, or none that knows the architecture.
    """
    if name != "auto" and name not in FAMILIES:
        raise ModelUnusable(
            f"RERANK_FAMILY is {name!r}: use auto or one of {', '.join(sorted(FAMILIES))}"
        )
    candidates = list(FAMILIES.values()) if name == "auto" else [FAMILIES[name]]
    for family in candidates:
        for architecture in architectures:
            if architecture in family.architectures:
                return family, family.architectures[architecture]
    known = ", ".join(sorted({known for family in candidates for known in family.architectures}))
    raise ModelUnusable(
        f"the model's architecture is {', '.join(architectures) or 'not given'}, which is no known "
        f"reranker: choose a model whose config.json names one of {known}"
    )
