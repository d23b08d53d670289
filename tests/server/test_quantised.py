"""Quantised checkpoints in vLLM on a CPU.

In 16 bits without bfloat16, which a virtual machine may offer and then refuse. Formats of eight
bits take such instructions too: where those were seen running, docs/families.md tells.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from in_process_engine import InProcess, vllm_in_this_process

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

# Of the same weights in 32 bits: what 16 bits lose.
TOLERANCE = 5e-3


@pytest.fixture(scope="module")
def vllm() -> Iterator[None]:
    with vllm_in_this_process():
        yield


def scores(model: Path, golden: list[dict[str, str]], dtype: str) -> list[float]:
    engine = InProcess(model, dtype=dtype)
    try:
        return [
            engine.scores(pair["query"], [pair["document"]], pair["instruction"])[0]
            for pair in golden
        ]
    finally:
        engine.close()


@pytest.mark.parametrize("format", ["awq", "gptq", "compressed-tensors w4a16"])
def test_quantised_checkpoint_scores_what_its_weights_mean(
    format: str, vllm: None, tiny_model: Path, tmp_path: Path
) -> None:
    import quantised

    golden = json.loads((tiny_model / "golden.json").read_text(encoding="utf-8"))[:12]
    quantised.write(format, tiny_model, tmp_path / "quantised", tmp_path / "plain")

    found = scores(tmp_path / "quantised", golden, "half")

    assert found == pytest.approx(scores(tmp_path / "plain", golden, "float32"), abs=TOLERANCE)
    assert max(found) - min(found) > 0.5


def test_logits_have_32_bits_whatever_the_weights_have(vllm: None, tiny_model: Path) -> None:
    engine = InProcess(tiny_model, dtype="half")

    logits = engine.logits("What is the capital of France?", [f"Town {n}" for n in range(20)])

    engine.close()
    assert all(float(np.float32(logit)) == logit for logit in logits)
    assert any(float(np.float16(logit)) != logit for logit in logits)
