"""What differs between reranker families, as data.

A family is one entry in FAMILIES; nothing else in the server knows a model by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rerank_server.errors import ModelUnusable


@dataclass(frozen=True)
class Family:
    """One kind of reranker: how a pair is written, and what vLLM must be told.

    A pair is `system`, `question`, `document` and `suffix`, one after the other. `system` and
    `suffix` may hold special tokens; `question` and `document` hold the caller's text in the
    places `{instruction}`, `{query}` and `{document}`. The score is the sigmoid of the one
    logit that vLLM gives.
    """

    name: str
    system: str
    question: str
    document: str
    suffix: str
    instruction: str
    # By architecture in config.json: what to override in it for vLLM.
    architectures: Mapping[str, Mapping[str, object]]
    # Words the model answers with; each has to be one token.
    answers: Sequence[str] = field(default=())


# Template and default instruction: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B
# Overrides: https://docs.vllm.ai/en/latest/models/pooling_models/scoring.html
QWEN3 = Family(
    name="qwen3-reranker",
    system=(
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the "
        'Query and the Instruct provided. Note that the answer can only be "yes" or "no".'
        "<|im_end|>\n<|im_start|>user\n"
    ),
    question="<Instruct>: {instruction}\n<Query>: {query}\n<Document>:",
    document=" {document}",
    suffix="<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    instruction="Given a web search query, retrieve relevant passages that answer the query",
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
    answers=("yes", "no"),
)

FAMILIES: Mapping[str, Family] = {family.name: family for family in (QWEN3,)}


def find_family(name: str, architectures: Sequence[str]) -> tuple[Family, Mapping[str, object]]:
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
