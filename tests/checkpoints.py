"""Small checkpoints of every architecture: random weights, tokenizers trained on a few lines.

Each is what the family's real models are, only smaller: kind of tokenizer, joining of pairs,
special tokens, positions. They have 256 tokens of room.
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import RobertaProcessing, TemplateProcessing

from rerank_server.families import find_family

ROOM = 256

LINES = [
    "What is the capital of France? Paris is the capital of France.",
    "Bread is made of flour, water, salt and yeast. The moon moves around the earth.",
    "Given a query A and a passage B, determine whether the passage contains an answer to the "
    "query by providing a prediction of either 'Yes' or 'No'.",
    "Yes",
    "No",
    "A: what B: that query: document: instruction: two  spaces\tand a tab\n\nand lines",
    "L'été à Zürich — 東京は日本の首都です。 Москва — столица России. عاصمة مصر هي القاهرة",
] * 4


def wordpiece() -> Tokenizer:
    """BERT: lower case, [CLS] query [SEP] document [SEP], the document of type 1."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        LINES, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)
    )
    tokenizer.post_processor = _cls_and_sep(tokenizer)
    # Such files keep what they were trained with.
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


def roberta() -> Tokenizer:
    """RoBERTa: bytes, <s> query </s></s> document </s>."""
    tokenizer = _byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def unigram() -> Tokenizer:
    """XLM-R: SentencePiece, whose vocabulary holds the special tokens as ordinary pieces."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def modernbert() -> Tokenizer:
    """ModernBERT: bytes, [CLS] and [SEP], and added tokens for runs of spaces."""
    tokenizer = _byte_level(["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("    ", normalized=False), AddedToken("|||EMAIL|||")])
    tokenizer.post_processor = _cls_and_sep(tokenizer)
    return tokenizer


def gemma() -> Tokenizer:
    """Gemma: SentencePiece made BPE, unknown bytes as such, line breaks as added tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    lines = [line for text in LINES for line in text.split("\n") if line.isascii()]
    tokenizer.train_from_iterator(
        lines, trainers.BpeTrainer(vocab_size=350, special_tokens=special)
    )
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False) for text in ("\n", "\n\n", "▁▁", "<table>")]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, directory: Path, inputs: Sequence[str]) -> None:
    """Save as transformers does; `inputs` are what its models take from it."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    known = tokenizer.get_vocab()
    names = {
        kind: next(name for name in candidates if name in known)
        for kind, candidates in {
            "pad_token": ("[PAD]", "<pad>", "<|endoftext|>"),
            "unk_token": ("[UNK]", "<unk>", "<|endoftext|>"),
        }.items()
    }
    config = names | {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 10**30,
        "model_input_names": ["input_ids", "attention_mask", *inputs],
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))


def _byte_level(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return tokenizer


def _cls_and_sep(tokenizer: Tokenizer) -> TemplateProcessing:
    return TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )


# How each family's models split text; those of the Qwen families, the small reranker shows.
TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "bert": wordpiece,
    "electra": wordpiece,
    "roberta": roberta,
    "xlm-roberta": unigram,
    "modernbert": modernbert,
    "bge-reranker-v2-gemma": gemma,
}

CLASSIFIER: dict[str, Any] = {"num_labels": 1}
# Positions of RoBERTa start after that of padding.
SHIFTED = CLASSIFIER | {
    "max_position_embeddings": ROOM + 2,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
DECODER: dict[str, Any] = {"num_key_value_heads": 1, "head_dim": 32, "tie_word_embeddings": True}
WINDOWED = CLASSIFIER | {
    "pad_token_id": 3,
    "local_attention": 16,
    "global_attn_every_n_layers": 2,
    "classifier_pooling": "mean",
}
# Configuration by architecture, and how much to enlarge weights and classifier: as they are made,
# random weights hardly tell two texts apart.
ARCHITECTURES: dict[str, tuple[dict[str, Any], int, int]] = {
    "BertForSequenceClassification": (CLASSIFIER, 8, 20),
    "ElectraForSequenceClassification": (CLASSIFIER | {"embedding_size": 64}, 6, 6),
    "RobertaForSequenceClassification": (SHIFTED, 6, 12),
    "CamembertForSequenceClassification": (SHIFTED, 6, 40),
    "XLMRobertaForSequenceClassification": (SHIFTED, 4, 20),
    "XLMRobertaXLForSequenceClassification": (SHIFTED, 4, 20),
    "ModernBertForSequenceClassification": (WINDOWED, 4, 2),
    "Qwen3ForCausalLM": (DECODER, 4, 1),
    "Qwen3ForSequenceClassification": (DECODER | CLASSIFIER, 4, 12),
    "Qwen2ForCausalLM": (DECODER, 4, 1),
    "Qwen2ForSequenceClassification": (DECODER | CLASSIFIER, 4, 8),
    "GemmaForCausalLM": (DECODER | {"pad_token_id": 0}, 8, 1),
    "GemmaForSequenceClassification": (DECODER | CLASSIFIER | {"pad_token_id": 0}, 8, 12),
}


def write_model(architecture: str, directory: Path, tiny_model: Path, **config: Any) -> None:
    """Write a random model; `tiny_model` lends its tokenizer to the Qwen families.

    `config` changes that of the model.
    """
    import torch
    import transformers

    family, _ = find_family("auto", [architecture])
    tokenizer = (
        TOKENIZERS[family.name]()
        if family.name in TOKENIZERS
        else Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
    )
    write_tokenizer(tokenizer, directory, ["token_type_ids"] if family.token_types else [])
    sizes, gain, classifier_gain = ARCHITECTURES[architecture]
    config = getattr(transformers, re.sub("For[A-Z].*", "Config", architecture))(
        **{
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": ROOM,
        }
        | sizes
        | config,
    )
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(classifier_gain if name.startswith(("class", "score")) else gain)
    model.save_pretrained(directory)
