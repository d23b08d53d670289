"""The Qwen3 architecture as a function of its weights, which go by the names of a checkpoint.

transformers has the same; this one compiles to a few kernels and trains twice as fast.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """What config.json says of the size."""

    vocabulary: int = 6144
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    intermediate: int = 640
    rope_theta: float = 1e5
    # Longest prompt in training.
    positions: int = 512


def initial_weights(shape: Shape, seed: int) -> Weights:
    """Return random weights, as Qwen3 starts."""
    generator = torch.Generator().manual_seed(seed)
    weights: Weights = {}

    def matrix(name: str, rows: int, columns: int, scale: float = 0.02) -> None:
        weights[f"model.{name}.weight"] = torch.randn(rows, columns, generator=generator) * scale

    def ones(name: str, size: int) -> None:
        weights[f"model.{name}.weight"] = torch.ones(size)

    matrix("embed_tokens", shape.vocabulary, shape.hidden)
    # What is added to the residual stream starts smaller, the more layers add to it.
    out = 0.02 / (2 * shape.layers) ** 0.5
    for layer in (f"layers.{number}" for number in range(shape.layers)):
        ones(f"{layer}.input_layernorm", shape.hidden)
        matrix(f"{layer}.self_attn.q_proj", shape.heads * shape.head_dim, shape.hidden)
        matrix(f"{layer}.self_attn.k_proj", shape.kv_heads * shape.head_dim, shape.hidden)
        matrix(f"{layer}.self_attn.v_proj", shape.kv_heads * shape.head_dim, shape.hidden)
        matrix(f"{layer}.self_attn.o_proj", shape.hidden, shape.heads * shape.head_dim, out)
        ones(f"{layer}.self_attn.q_norm", shape.head_dim)
        ones(f"{layer}.self_attn.k_norm", shape.head_dim)
        ones(f"{layer}.post_attention_layernorm", shape.hidden)
        matrix(f"{layer}.mlp.gate_proj", shape.intermediate, shape.hidden)
        matrix(f"{layer}.mlp.up_proj", shape.intermediate, shape.hidden)
        matrix(f"{layer}.mlp.down_proj", shape.hidden, shape.intermediate, out)
    ones("norm", shape.hidden)
    return weights


def hidden_states(weights: Weights, ids: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return the last layer's output for each token of `ids` (rows of equal length)."""
    rows, length = ids.shape
    cosine, sine = _rotation(length, shape, ids.device)
    state = functional.embedding(ids, weights["model.embed_tokens.weight"])
    for number in range(shape.layers):
        layer = f"model.layers.{number}"
        attention = f"{layer}.self_attn"
        normed = _norm(state, weights[f"{layer}.input_layernorm.weight"])

        def heads(part: str, count: int, of: torch.Tensor, name: str) -> torch.Tensor:
            projected = functional.linear(of, weights[f"{name}.{part}_proj.weight"])
            return projected.view(rows, length, count, shape.head_dim)

        query = heads("q", shape.heads, normed, attention)
        key = heads("k", shape.kv_heads, normed, attention)
        value = heads("v", shape.kv_heads, normed, attention).transpose(1, 2)
        query = _norm(query, weights[f"{attention}.q_norm.weight"]).transpose(1, 2)
        key = _norm(key, weights[f"{attention}.k_norm.weight"]).transpose(1, 2)
        repeat = shape.heads // shape.kv_heads
        mixed = functional.scaled_dot_product_attention(
            _rotate(query, cosine, sine),
            _rotate(key, cosine, sine).repeat_interleave(repeat, dim=1),
            value.repeat_interleave(repeat, dim=1),
            is_causal=True,
        )
        mixed = mixed.transpose(1, 2).reshape(rows, length, shape.heads * shape.head_dim)
        state = state + functional.linear(mixed, weights[f"{attention}.o_proj.weight"])
        normed = _norm(state, weights[f"{layer}.post_attention_layernorm.weight"])
        gate = functional.silu(functional.linear(normed, weights[f"{layer}.mlp.gate_proj.weight"]))
        up = functional.linear(normed, weights[f"{layer}.mlp.up_proj.weight"])
        state = state + functional.linear(gate * up, weights[f"{layer}.mlp.down_proj.weight"])
    return _norm(state, weights["model.norm.weight"])


def score(
    weights: Weights, state: torch.Tensor, last: torch.Tensor, no_yes: torch.Tensor
) -> torch.Tensor:
    """Return logit(yes) - logit(no) at the last token of each row, in 32 bits."""
    final = state[torch.arange(len(last), device=last.device), last].float()
    no, yes = weights["model.embed_tokens.weight"][no_yes].float()
    return (final * (yes - no)).sum(-1)


def _norm(value: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    wide = value.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * weight).to(
        value.dtype
    )


def _rotation(length: int, shape: Shape, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    half = torch.arange(0, shape.head_dim, 2, device=device).float() / shape.head_dim
    angles = torch.outer(torch.arange(length, device=device).float(), 1.0 / shape.rope_theta**half)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def _rotate(value: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    first, second = value.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (value * cosine + turned * sine).to(value.dtype)
