"""Scores as transformers gives them in 32 bits: what every other way is compared with."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from rerank_server.families import QWEN3
from rerank_server.tokens import PairTokenizer

ROWS = 512


class Reference:
    """A checkpoint in 32 bits, on the GPU if there is one."""

    def __init__(self, directory: Path) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self._model = model.eval().to(self._device)
        text = (directory / "tokenizer.json").read_text(encoding="utf-8")
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        length = config["max_position_embeddings"]
        self._pairs = PairTokenizer(text, QWEN3, length, None)
        vocabulary = json.loads(text)["model"]["vocab"]
        yes, no = (self._model.lm_head.weight[vocabulary[word]] for word in ("yes", "no"))
        self._direction = (yes - no).detach()

    def logits(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> list[float]:
        """Return logit(yes) - logit(no) for each document."""
        pairs = self._pairs.pairs(self._pairs.question(query, instruction), documents)
        return self.prompt_logits([prompt.ids for prompt in pairs.prompts])

    def prompt_logits(self, prompts: Sequence[list[int]]) -> list[float]:
        """Return the same for prompts that are token ids already."""
        found = torch.empty(len(prompts))
        # Of like length together: what is padded on the right, a causal model does not see.
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        for start in range(0, len(order), ROWS):
            rows = [torch.tensor(prompts[number]) for number in order[start : start + ROWS]]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self._device)
            last = torch.tensor([len(row) - 1 for row in rows], device=self._device)
            with torch.no_grad():
                states = self._model.model(input_ids=ids).last_hidden_state
                final = states[torch.arange(len(rows), device=self._device), last]
                found[order[start : start + ROWS]] = (final @ self._direction).cpu()
        return [float(logit) for logit in found]
