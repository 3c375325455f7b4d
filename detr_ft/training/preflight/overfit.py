"""Overfit one batch, as a test that the model can learn from the data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from accelerate.utils import send_to_device
from torch import nn
from torch.optim import AdamW

from detr_ft.training.step_loader import MicroBatch
from detr_ft.training.trainer import DetrTrainer

_OVERFIT_STEPS, _OVERFIT_SECONDS = 120, 60.0
_LEARNED, _LEARNS = (
    0.5,
    0.8,
)  # of the loss at the start: what is left when a batch is learned, and when it is being learned


@dataclass(frozen=True)
class Overfit:
    """What came of training on one batch alone."""

    verdict: str  # pass, slow or fail
    steps: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    reason: str


def overfit(trainer: DetrTrainer) -> Overfit:
    """Train on the first batch with objects alone, without dropout, at the learning rates of the recipe."""
    micro = next(micro for work in trainer.feed.steps() for micro in work.share if _objects(micro))
    optimizer = AdamW([{**group, "lr": group["initial_lr"]} for group in _plain_groups(trainer)])
    began = time.monotonic()
    losses: list[float] = []
    terms: list[dict[str, float]] = []
    with _without_dropout(trainer.model):
        while len(losses) < _OVERFIT_STEPS and time.monotonic() - began < _OVERFIT_SECONDS:
            inputs = trainer.format.normalize(send_to_device(micro.inputs, trainer.accelerator.device))
            outputs = trainer.wrapped(**inputs)
            outputs.loss.backward()
            nn.utils.clip_grad_norm_(trainer.model.parameters(), trainer.settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(outputs.loss.item())
            terms.append({name: value.item() for name, value in outputs.loss_dict.items() if name[-1].isalpha()})
            if losses[-1] < _LEARNED * losses[0]:
                break
    verdict, reason = judge_overfit(losses, terms)
    return Overfit(verdict, len(losses), {"loss": losses[0], **terms[0]}, {"loss": losses[-1], **terms[-1]}, reason)


def judge_overfit(losses: Sequence[float], terms: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Whether the losses of training on one batch show that it can be learned: pass, slow or fail, and why."""
    first, last = losses[0], losses[-1]
    fell = f"the loss of one batch went from {first:.3g} to {last:.3g} in {len(losses)} steps"
    if last < _LEARNED * first:
        return "pass", fell
    stuck = [name for name in terms[0] if name.startswith("loss") and terms[-1][name] > 0.95 * terms[0][name]]
    if last < _LEARNS * first and len(losses) >= _OVERFIT_STEPS:
        return "slow", f"{fell}: it learns, slowly; a higher train.learning_rate may do"
    if len(losses) < _OVERFIT_STEPS and last < first:
        return "slow", f"{fell}, and there was no time for more: steps are slow on this machine"
    why = f"; {', '.join(stuck)} did not fall" if stuck else ""
    return "fail", f"{fell}{why}: look at what trains (model.freeze), the learning rate, boxes and classes"


def _plain_groups(trainer: DetrTrainer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = trainer.optimizer.param_groups
    return [{key: group[key] for key in ("params", "initial_lr", "weight_decay")} for group in groups]


def _objects(micro: MicroBatch) -> int:
    return sum(len(one["class_labels"]) for one in micro.inputs["labels"])


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """In evaluation mode there is no dropout; norms stay as they are, too."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
