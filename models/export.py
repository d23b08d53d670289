"""Writes a checkpoint that vLLM, transformers and sentence-transformers load."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from network import Shape, Weights
from rerank_server.families import QWEN3

# What sentence-transformers asks of a language model that answers with one of two tokens.
MODULES = [
    {
        "idx": 0,
        "name": "0",
        "path": "",
        "type": "sentence_transformers.base.modules.transformer.Transformer",
    },
    {
        "idx": 1,
        "name": "1",
        "path": "1_LogitScore",
        "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
    },
]
TRANSFORMER = {
    "transformer_task": "text-generation",
    "modality_config": {
        "text": {"method": "forward", "method_output_name": "logits"},
        "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
    },
    "module_output_name": "causal_logits",
    "processing_kwargs": {"chat_template": {"add_generation_prompt": True}},
}
CROSS_ENCODER = {
    "model_type": "CrossEncoder",
    "prompts": {"query": QWEN3.instruction},
    "default_prompt_name": "query",
    "activation_fn": "torch.nn.modules.activation.Sigmoid",
}


def save(weights: Weights, shape: Shape, data: Path, out: Path) -> None:
    """Write a checkpoint as Qwen3-Reranker's: weights in bfloat16, config and tokenizer.

    `data` is the directory of the tokenizer.
    """
    out.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: weight.detach().to("cpu", torch.bfloat16).contiguous()
        for name, weight in weights.items()
    }
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    # It writes for the owner alone; the user of the server's image is another.
    (out / "model.safetensors").chmod(0o644)
    shutil.copyfile(data / "tokenizer.json", out / "tokenizer.json")
    tokenizer = json.loads((data / "tokenizer.json").read_text(encoding="utf-8"))
    token = {added["content"]: added["id"] for added in tokenizer["added_tokens"]}
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": token["<|endoftext|>"],
        "eos_token_id": token["<|im_end|>"],
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.positions,
        "max_window_layers": shape.layers,
        "model_type": "qwen3",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocabulary,
    }
    tokenizer_config = {
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": shape.positions,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    vocabulary = tokenizer["model"]["vocab"]
    yes, no = (vocabulary[word] for word in ("yes", "no"))
    score = {"true_token_id": yes, "false_token_id": no, "module_input_name": "causal_logits"}
    for name, value in {
        "config.json": config,
        "tokenizer_config.json": tokenizer_config,
        "modules.json": MODULES,
        "sentence_bert_config.json": TRANSFORMER,
        "config_sentence_transformers.json": CROSS_ENCODER,
        "1_LogitScore/config.json": score,
    }.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
    (out / "chat_template.jinja").write_text(chat_template(), encoding="utf-8")


def chat_template() -> str:
    """Return the pair template for sentence-transformers, whose messages are named for their part.

    Source: https://sbert.net/docs/cross_encoder/usage/custom_models.html
    """
    default = QWEN3.instruction
    parts = f'namespace(system="{default}", query="", document="")'
    question = QWEN3.question.replace("{instruction}", "{{ parts.system }}")
    question = question.replace("{query}", "{{ parts.query }}")
    document = QWEN3.document.replace("{document}", "{{ parts.document }}")
    choose = "".join(
        f'{{%- if message.role == "{role}" %}}{{% set parts.{role} = message.content %}}'
        "{% endif %}"
        for role in ("system", "query", "document")
    )
    # A template drops one line break at its end.
    return (
        f"{{%- set parts = {parts} -%}}{{%- for message in messages %}}{choose}{{% endfor -%}}"
        f"{QWEN3.system}{question}{document}{QWEN3.suffix}\n"
    )
