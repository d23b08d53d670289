"""Trains the small reranker from nothing on prepared data.

    python models/train.py --data DIR --out DIR [--steps N] [--short]

Prints the loss and held-out figures as it goes. On a GPU it takes minutes; `--short` is for any
machine and shows that the code works, not that the model does.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from batches import GROUP, Batch, Data, Groups, candidates, heldout_batches
from export import save
from metrics import figures
from network import Shape, Weights, hidden_states, initial_weights, score

SEED = 20261122


@dataclass(frozen=True)
class Plan:
    """How much is trained, and on prompts of what length."""

    # What an H200 does in a quarter of an hour.
    steps: int = 30_551
    groups: int = 64
    length: int = 192
    # The last part of the training: fewer and longer prompts.
    long_share: float = 0.2
    long_length: int = 384
    peak: float = 2e-3
    warmup: int = 500
    language_weight: float = 0.1
    optimizer: str = "muon"
    report_every: int = 2500
    validation_queries: int = 400
    workers: int = 14

    def shape_of(self, step: int) -> tuple[int, int]:
        """Return groups and length of a step's batch."""
        if step < self.steps * (1 - self.long_share):
            return self.groups, self.length
        return self.groups * self.length // self.long_length, self.long_length

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, as a part of the peak."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - self.warmup, 1)
        return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Batches:
    """One batch per step, for a DataLoader to make in other processes."""

    def __init__(self, groups: Groups, plan: Plan) -> None:
        self._groups = groups
        self._plan = plan

    def __len__(self) -> int:
        return self._plan.steps

    def __getitem__(self, step: int) -> Batch:
        return self._groups.batch(step, *self._plan.shape_of(step))


def loss_of(
    weights: Weights,
    ids: torch.Tensor,
    last: torch.Tensor,
    no_yes: torch.Tensor,
    shape: Shape,
    language_weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss to minimise and its part that ranks."""
    state = hidden_states(weights, ids, shape)
    logits = score(weights, state, last, no_yes).view(-1, GROUP)
    right = torch.zeros(len(logits), dtype=torch.long, device=ids.device)
    ranking = functional.cross_entropy(logits, right)
    labels = functional.one_hot(right, GROUP).float()
    ranking = ranking + 0.5 * functional.binary_cross_entropy_with_logits(logits, labels)
    # Guessing the next token of right pairs teaches which words go together, and to look back.
    guesses = functional.linear(state[::GROUP, :-1], weights["model.embed_tokens.weight"])
    following = ids[::GROUP, 1:]
    places = torch.arange(following.shape[1], device=ids.device)
    following = following.masked_fill(places[None] >= last[::GROUP, None], -100)
    language = functional.cross_entropy(guesses.float().flatten(0, 1), following.flatten())
    return ranking + language_weight * language, ranking


def build_optimizers(weights: Weights, plan: Plan) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the layers and AdamW for the rest, or AdamW for all."""
    matrices = [weight for name, weight in weights.items() if weight.ndim == 2 and "layers" in name]
    embeddings = [weights["model.embed_tokens.weight"]]
    norms = [weight for weight in weights.values() if weight.ndim == 1]
    decayed = embeddings if plan.optimizer == "muon" else embeddings + matrices
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
        lr=plan.peak,
        betas=(0.9, 0.98),
        fused=embeddings[0].is_cuda,
    )
    if plan.optimizer != "muon":
        return [adam]
    muon = torch.optim.Muon(
        matrices, lr=plan.peak, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    return [adam, muon]


class Trainer:
    """Weights on their way, and what it takes to move them."""

    def __init__(self, data: Data, plan: Plan, device: torch.device) -> None:
        self.shape = Shape()
        self.weights = {
            name: weight.to(device).requires_grad_()
            for name, weight in initial_weights(self.shape, SEED).items()
        }
        self._data = data
        self._device = device
        self._no_yes = torch.tensor(data.no_yes.tolist(), device=device)
        self._plan = plan
        self._optimizers = build_optimizers(self.weights, plan)
        self._loss: Callable[..., tuple[torch.Tensor, torch.Tensor]] = loss_of
        # The environment of the CPU tests has no triton, which compiling needs.
        if device.type == "cuda" and find_spec("triton"):
            self._loss = torch.compile(loss_of, dynamic=False)

    def step(self, number: int, ids: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """Move the weights by one batch; return the ranking loss."""
        rate = self._plan.peak * self._plan.rate(number)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        ids = ids.to(self._device, non_blocking=True).long()
        last = last.to(self._device, non_blocking=True).long()
        with torch.autocast(self._device.type, torch.bfloat16, self._device.type == "cuda"):
            loss, ranking = self._loss(
                self.weights, ids, last, self._no_yes, self.shape, self._plan.language_weight
            )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return ranking.detach()

    def validate(self, queries: Sequence[int], length: int) -> dict[str, float]:
        """Return the figures over queries of sections that are not trained on."""
        found = candidates(self._data, queries, 50)
        scores = score_batches(
            self.weights, self._data, queries, found, length, self.shape, self._device
        )
        return figures(scores, found, queries)


def score_batches(
    weights: Weights,
    data: Data,
    queries: Sequence[int],
    found: np.ndarray,
    length: int,
    shape: Shape,
    device: torch.device,
) -> np.ndarray:
    """Return the score of each candidate, a row per query."""
    no_yes = torch.tensor(data.no_yes.tolist(), device=device)
    rows = []
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, device.type == "cuda"):
        for batch in heldout_batches(data, queries, found, length):
            used = int(batch.last.max()) + 1
            # A few lengths only: each new one takes time to plan.
            used = min(-(-used // 64) * 64, length)
            ids = torch.from_numpy(batch.ids[:, :used]).to(device).long()
            last = torch.from_numpy(batch.last).to(device).long()
            rows.append(score(weights, hidden_states(weights, ids, shape), last, no_yes))
    return np.asarray(torch.stack(rows).float().cpu().numpy())


def train(directory: Path, out: Path, plan: Plan) -> None:
    """Train, save, and note in training.json how."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(SEED)
    torch.backends.cuda.matmul.allow_tf32 = True
    data = Data(directory)
    chance = np.random.default_rng(SEED)
    queries = chance.permutation(np.flatnonzero(data.split == 1))[: plan.validation_queries]
    groups = Groups(data, SEED)
    print(f"{device} torch {torch.__version__} {plan}", flush=True)
    trainer = Trainer(data, plan, device)
    print(f"{sum(weight.numel() for weight in trainer.weights.values())} parameters", flush=True)
    started = time.monotonic()
    losses: list[torch.Tensor] = []
    for number, (ids, last) in enumerate(_load(groups, plan)):
        losses.append(trainer.step(number, ids, last))
        if (number + 1) % plan.report_every == 0 or number + 1 == plan.steps:
            loss = float(torch.stack(losses).mean())
            losses.clear()
            shown = trainer.validate(queries.tolist(), plan.long_length)
            text = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
            seconds = time.monotonic() - started
            print(f"step {number + 1} of {plan.steps}, {seconds:.0f} s: loss {loss:.4f}, {text}",
                  flush=True)  # fmt: skip
            save(trainer.weights, trainer.shape, directory, out)
    (out / "training.json").write_text(
        json.dumps({
            **plan.__dict__,
            "seconds": round(time.monotonic() - started),
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU",
        }, indent=2)
    )  # fmt: skip


def _load(groups: Groups, plan: Plan) -> "torch.utils.data.DataLoader[Batch]":
    return torch.utils.data.DataLoader(
        Batches(groups, plan),
        batch_size=None,
        sampler=range(plan.steps),
        num_workers=plan.workers,
        prefetch_factor=16 if plan.workers else None,
        pin_memory=torch.cuda.is_available(),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small reranker.")
    parser.add_argument("--data", type=Path, required=True, help="what prepare.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--short", action="store_true", help="a few steps, to try the code")
    options = parser.parse_args()
    plan = Plan(options.steps)
    if options.short:
        plan = Plan(
            20, groups=4, length=128, long_length=256, warmup=5, report_every=10,
            validation_queries=3, workers=0, optimizer="adamw",
        )  # fmt: skip
    train(options.data, options.out, plan)


if __name__ == "__main__":
    main()
