"""Overfit one batch, as a test that the model can learn from the data."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from detr_ft.training.step import EagerForwardBackward, StepError, Stepper
from detr_ft.training.step_loader import MicroBatch, StepBatch
from detr_ft.training.trainer import DetrTrainer

_MAX_STEPS, _MAX_SECONDS = 120, 60.0
_PASS_FRACTION, _SLOW_FRACTION = 0.5, 0.8  # of the initial loss


@dataclass(frozen=True)
class Overfit:
    """The result of training on one batch alone."""

    verdict: str  # pass, slow or fail
    steps: int
    first: Mapping[str, float]
    last: Mapping[str, float]
    reason: str


def overfit(trainer: DetrTrainer) -> Overfit:
    """Train on the first batch with objects alone, without dropout, at the learning rates of the settings.

    The weights change, and so does the state of optimizer and scaler; `unchanged` restores them. For a single process.
    """
    micro = next(micro for batch in trainer.loader.steps() for micro in batch.micro_batches if _num_objects(micro))
    batch = StepBatch(0, 0, len(micro.rows), [micro])
    stepper = _at_constant_rates(trainer.stepper)
    started_at = time.monotonic()
    losses: list[float] = []
    terms: list[dict[str, float]] = []
    with _without_dropout(trainer.model):
        while len(losses) < _MAX_STEPS and time.monotonic() - started_at < _MAX_SECONDS:
            try:
                values = {name: value.item() for name, value in stepper.step(batch, len(losses) + 1).items()}
                stepper.settle()
            except StepError as error:
                return Overfit(
                    "fail", len(losses), {}, {}, f"step {len(losses) + 1} on one batch failed: {error.reason}"
                )
            losses.append(values["loss"])
            terms.append({name: value for name, value in values.items() if name[-1].isalpha()})
            if losses[-1] < _PASS_FRACTION * losses[0]:
                break
    verdict, reason = judge_overfit(losses, terms)
    return Overfit(verdict, len(losses), terms[0], terms[-1], reason)


def judge_overfit(losses: Sequence[float], terms: Sequence[Mapping[str, float]]) -> tuple[str, str]:
    """Return a verdict on the losses of training on one batch, pass, slow or fail, and its reason."""
    first, last = losses[0], losses[-1]
    change = f"the loss of one batch went from {first:.3g} to {last:.3g} in {len(losses)} steps"
    if last < _PASS_FRACTION * first:
        return "pass", change
    if last < _SLOW_FRACTION * first and len(losses) >= _MAX_STEPS:
        return "slow", f"{change}: it learns, slowly; try a higher train.learning_rate"
    if len(losses) < _MAX_STEPS and last < first:
        return "slow", f"{change}, and time was up: steps are slow on this machine"
    constant = [name for name in terms[0] if name.startswith("loss_") and terms[-1][name] > 0.95 * terms[0][name]]
    which = f"; {', '.join(constant)} did not fall" if constant else ""
    return "fail", f"{change}{which}: check the trained parts (model.freeze), the learning rate, boxes and classes"


@contextmanager
def unchanged(stepper: Stepper) -> Iterator[None]:
    """Restore weights, buffers, optimizer and scaler after the context, bit for bit, and remove gradients."""
    model, optimizer, scaler = stepper.model, stepper.optimizer, stepper.accelerator.scaler
    weights = {name: value.detach().clone() for name, value in model.state_dict().items()}
    moments, scale = deepcopy(optimizer.state_dict()), scaler.state_dict() if scaler else None
    try:
        yield
    finally:
        model.load_state_dict(weights)
        model.zero_grad()
        optimizer.load_state_dict(moments)
        if scaler:
            scaler.load_state_dict(scale)


def _at_constant_rates(stepper: Stepper) -> Stepper:
    """Return a stepper of the same model and optimizer, without schedule, average and CUDA graphs."""
    optimizer = stepper.optimizer
    schedule = LambdaLR(optimizer.optimizer, lambda step: 1.0)
    eager = EagerForwardBackward(stepper.accelerator, stepper.forward_backward.wrapped)
    return replace(stepper, forward_backward=eager, schedule=schedule, ema=None)


def _num_objects(micro: MicroBatch) -> int:
    return sum(len(label["class_labels"]) for label in micro.inputs["labels"])


@contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode within the context; norms then keep their statistics, too."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
