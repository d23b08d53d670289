"""Quantised copies of the small reranker, rounded to nearest: no calibration, no other library.

The small reranker learnt something, so what a format breaks shows in its scores.
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

GROUP = 32
# Where AutoAWQ puts the eight values of a word.
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)

Tensors = dict[str, torch.Tensor]


class Format(NamedTuple):
    """`quantise` takes a weight (out, in): returns the tensors in its place, and what they mean."""

    config: Mapping[str, Any]
    quantise: Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]


def write(name: str, original: Path, quantised: Path, plain: Path) -> None:
    """Write a checkpoint in the format `name`, and one with the same weights unquantised."""
    config = json.loads((original / "config.json").read_text())
    weights: Tensors = {}
    meant: Tensors = {}
    for tensor, value in load_file(original / "model.safetensors").items():
        if re.search(r"layers\.\d+\.(self_attn|mlp)\..*_proj\.weight$", tensor):
            parts, meaning = FORMATS[name].quantise(value.float())
            prefix = tensor.removesuffix("weight")
            weights |= {prefix + part: content.contiguous() for part, content in parts.items()}
            meant[tensor] = meaning.contiguous()
        else:
            weights[tensor], meant[tensor] = value, value.float()
    for directory, tensors, extra in (
        (quantised, weights, {"quantization_config": FORMATS[name].config}),
        (plain, meant, {"torch_dtype": "float32"}),
    ):
        shutil.copytree(original, directory, ignore=shutil.ignore_patterns("*.safetensors"))
        (directory / "config.json").write_text(json.dumps(config | extra))
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})


def _awq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    groups = weight.reshape(len(weight), -1, GROUP)
    low, high = groups.amin(-1, keepdim=True).clamp(max=0), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).clamp(min=1e-6).half().float()
    zero = (-low / scale).round().clamp(0, 15)
    values = (groups / scale + zero).round().clamp(0, 15)
    meant = ((values - zero) * scale).reshape(weight.shape)
    return {
        "qweight": _pack(values.reshape(weight.shape).T, AWQ_ORDER),
        "qzeros": _pack(zero[..., 0].T, AWQ_ORDER),
        "scales": scale[..., 0].T.half(),
    }, meant


def _gptq(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    values, scale, meant = _symmetric(weight)
    return {
        "qweight": _pack(values + 8, range(8)).T,
        # One less than the zero point, as the first GPTQ tools wrote it.
        "qzeros": _pack(torch.full_like(scale.T, 7), range(8)),
        "scales": scale.T.half(),
        "g_idx": (torch.arange(weight.shape[1]) // GROUP).int(),
    }, meant


def _packed(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    values, scale, meant = _symmetric(weight)
    return {
        "weight_packed": _pack(values + 8, range(8)),
        "weight_scale": scale.bfloat16(),
        "weight_shape": torch.tensor(weight.shape),
    }, meant


def _int8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 127
    values = (weight / scale).round().clamp(-128, 127)
    return {"weight": values.to(torch.int8), "weight_scale": scale}, values * scale


def _fp8_channel(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale = weight.abs().amax(1, keepdim=True) / 448
    values = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale": scale}, values.float() * scale


def _fp8(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    scale = weight.abs().amax() / 448
    values = (weight / scale).to(torch.float8_e4m3fn)
    return {"weight": values, "weight_scale": scale}, values.float() * scale


def _symmetric(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups = weight.reshape(len(weight), -1, GROUP)
    # bfloat16 is exact in half here and the other way round: both formats mean the same.
    scale = (groups.abs().amax(-1, keepdim=True) / 7).bfloat16().half().float()
    values = (groups / scale).round().clamp(-8, 7)
    return values.reshape(weight.shape), scale[..., 0], (values * scale).reshape(weight.shape)


def _pack(values: torch.Tensor, order: Any) -> torch.Tensor:
    """Pack the last dimension, eight values of four bits to a word."""
    words = values.to(torch.int64).reshape(*values.shape[:-1], -1, 8)
    packed = torch.zeros_like(words[..., 0])
    for shift, place in enumerate(order):
        packed |= words[..., place] << (4 * shift)
    return packed.to(torch.uint32).view(torch.int32)


def _compressed(format: str, weights: Mapping[str, Any], activations: bool) -> dict[str, Any]:
    group: dict[str, Any] = {"targets": ["Linear"], "weights": {"symmetric": True, **weights}}
    if activations:
        kind = {"num_bits": 8, "type": weights["type"], "symmetric": True}
        group["input_activations"] = kind | {"dynamic": True, "strategy": "token"}
    return {
        "quant_method": "compressed-tensors",
        "format": format,
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


FORMATS: dict[str, Format] = {
    "awq": Format(
        {
            "quant_method": "awq",
            "bits": 4,
            "group_size": GROUP,
            "zero_point": True,
            "version": "gemm",
        },
        _awq,
    ),
    "gptq": Format(
        {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": GROUP,
            "sym": True,
            "desc_act": False,
        },
        _gptq,
    ),
    "compressed-tensors w4a16": Format(
        _compressed(
            "pack-quantized",
            {"num_bits": 4, "type": "int", "strategy": "group", "group_size": GROUP},
            activations=False,
        ),
        _packed,
    ),
    "compressed-tensors int8": Format(
        _compressed(
            "int-quantized",
            {"num_bits": 8, "type": "int", "strategy": "channel"},
            activations=True,
        ),
        _int8,
    ),
    "compressed-tensors fp8": Format(
        _compressed(
            "float-quantized",
            {"num_bits": 8, "type": "float", "strategy": "channel"},
            activations=True,
        ),
        _fp8_channel,
    ),
    "fp8": Format({"quant_method": "fp8", "activation_scheme": "dynamic"}, _fp8),
}
