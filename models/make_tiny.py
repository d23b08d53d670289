"""A tiny random reranker of the Qwen3 architecture: loads like a real one, ranks at random.

Tests and images use it where the question is whether the machinery works. It needs numpy and
tokenizers, no torch, takes a second, and gives the same bytes every time.

    python models/make_tiny.py OUT_DIR
"""

import argparse
import json
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 128, 2, 4, 2, 64, 256
VOCABULARY = 1024
SEED = 20261122

# Tokens the Qwen3-Reranker template is written with. As in the original, the last two are
# added tokens but not special ones.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
ADDED_TOKENS = ("<think>", "</think>")

# The pre-tokeniser of Qwen2 and Qwen3.
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

TEXT = """\
yes
no
Judge whether the Document meets the requirements based on the Query and the Instruct provided. \
Note that the answer can only be "yes" or "no".
Given a web search query, retrieve relevant passages that answer the query
system user assistant
<Instruct>: <Query>: <Document>:
The capital of France is Paris, a city on the river Seine. Berlin is the capital of Germany.
A reranker reads a query together with each document and gives a score of relevance between zero
and one. Search finds many candidates quickly; the reranker puts the best of them first.
Kubernetes schedules pods on nodes. A deployment keeps the wanted number of replicas running, a
service gives them one address, and an autoscaler changes their number as the load moves.
An operator watches objects of its own kind and makes the cluster match what they ask for.
Bread is made of flour, water, salt and yeast. Knead the dough, let it rise, then bake it in a hot
oven until the crust is brown. Fresh bread smells good and keeps for two days.
Plants turn light, water and carbon dioxide into sugar and oxygen. Leaves are green because of
chlorophyll, which takes in red and blue light.
The moon moves around the earth in twenty seven days and pulls the tides of the sea behind it.
A computer stores numbers in memory, adds them in its processor and shows the results on a screen.
Rivers run from the mountains to the sea; they carry sand, mud and small stones with them.
What is the boiling point of water? How do I restart a pod? Where was the telephone invented? Who
wrote this book? When does the next train leave? Why is the sky blue? Which city is the largest?
Water boils at 100 degrees Celsius at sea level, and at lower temperatures high in the mountains.
The telephone was invented in 1876. The train leaves at 10:45. Books are printed on paper.
"""


def make(directory: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json and tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config())
    # Rounded up as real checkpoints do: tensor parallelism and kernels want a multiple of 64.
    vocabulary = -(-tokenizer.get_vocab_size() // 64) * 64
    _write_json(directory / "config.json", _config(tokenizer, vocabulary))
    (directory / "model.safetensors").write_bytes(_safetensors(_weights(vocabulary)))


def build_tokenizer() -> Tokenizer:
    """Train a byte-level BPE in which `yes` and `no` are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        # Before the merges reach them, so that no text is too rare for either.
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # Enough of both to win their merges over any other pair.
    tokenizer.train_from_iterator([TEXT] + ["yes", "no"] * 50, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ADDED_TOKENS])
    return tokenizer


def _config(tokenizer: Tokenizer, vocabulary: int) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": 8192,
        "max_window_layers": LAYERS,
        "model_type": "qwen3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": vocabulary,
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": 8192,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def _weights(vocabulary: int) -> Iterator[tuple[str, np.ndarray]]:
    random = np.random.Generator(np.random.PCG64(SEED))

    def matrix(rows: int, columns: int, scale: float) -> np.ndarray:
        return random.standard_normal((rows, columns), dtype=np.float32) * np.float32(scale)

    # Small embeddings under full-sized layers: the last token's own embedding is then a small
    # part of what is read out, and scores differ between documents.
    yield "model.embed_tokens.weight", matrix(vocabulary, HIDDEN, 0.12)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", np.ones(HIDDEN, np.float32)
        yield f"{name}.post_attention_layernorm.weight", np.ones(HIDDEN, np.float32)
        # Above 1 the attention picks a few tokens instead of averaging over all of them.
        yield f"{name}.self_attn.q_norm.weight", np.full(HEAD_DIM, 2.0, np.float32)
        yield f"{name}.self_attn.k_norm.weight", np.full(HEAD_DIM, 1.0, np.float32)
        for part, heads in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)):
            yield (
                f"{name}.self_attn.{part}_proj.weight",
                matrix(heads * HEAD_DIM, HIDDEN, HIDDEN**-0.5),
            )
        yield (
            f"{name}.self_attn.o_proj.weight",
            matrix(HIDDEN, HEADS * HEAD_DIM, (HEADS * HEAD_DIM) ** -0.5),
        )
        for part in ("gate", "up"):
            yield f"{name}.mlp.{part}_proj.weight", matrix(INTERMEDIATE, HIDDEN, HIDDEN**-0.5)
        yield f"{name}.mlp.down_proj.weight", matrix(HIDDEN, INTERMEDIATE, INTERMEDIATE**-0.5)
    yield "model.norm.weight", np.ones(HIDDEN, np.float32)


def _safetensors(tensors: Iterable[tuple[str, np.ndarray]]) -> bytes:
    """Lay out a file by hand: the library has no bfloat16 without torch.

    Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = bytearray()
    for name, value in tensors:
        start = len(data)
        data += _bfloat16(value)
        header[name] = {
            "dtype": "BF16",
            "shape": list(value.shape),
            "data_offsets": [start, len(data)],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(data)


def _bfloat16(value: np.ndarray) -> bytes:
    """Round to nearest even: a bfloat16 is the upper half of a float32."""
    bits = np.ascontiguousarray(value, dtype="<f4").view("<u4")
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return rounded.astype("<u2").tobytes()


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a tiny random Qwen3 reranker.")
    parser.add_argument("out_dir", type=Path, help="directory to write, made if missing")
    make(parser.parse_args().out_dir)


if __name__ == "__main__":
    main()
