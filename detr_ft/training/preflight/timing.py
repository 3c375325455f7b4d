"""Time training steps: by their parts, and under bf16, CUDA graphs and torch.compile."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.settings import TrainSettings
from detr_ft.training.step import EagerForwardBackward
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.environment import device_time

PARTS = ("reading", "moving", "forward", "matching", "loss", "backward", "optimizer")
_WARMUP_STEPS, _TIMED_STEPS = 2, 20  # of the parts
_RATE_WARMUP_STEPS, _RATE_STEPS, _RATE_SECONDS = 4, 10, 6.0  # a CUDA graph is captured in the second step


@dataclass
class PartTimer:
    """Seconds by part. The device is synchronized at the end of each."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    _ended_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._ended_at = device_time(self.device)

    def end(self, part: str) -> None:
        """End a part, which began when the previous one ended."""
        now = device_time(self.device)
        self.seconds[part] += now - self._ended_at
        self._ended_at = now


@dataclass(frozen=True)
class _TimedMatcher:
    """A matcher whose start and end are timed."""

    matcher: Any
    timer: PartTimer

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        self.timer.end("forward")
        matches: Matches = self.matcher(predictions, targets)
        self.timer.end("matching")
        return matches


def time_parts(trainer: DetrTrainer) -> tuple[dict[str, float], float]:
    """Train the first steps; return the mean seconds of a step by part, and its mean images.

    Steps run operation by operation, without CUDA graphs. Raises StepError.
    """
    timer = PartTimer(trainer.accelerator.device)
    criterion = trainer.criterion.at(0)
    stepper = replace(
        trainer.stepper,
        forward_backward=EagerForwardBackward(trainer.accelerator, trainer.stepper.forward_backward.wrapped),
        criterion=SetCriterion(_TimedMatcher(criterion.matcher, timer), criterion.losses),
        mark=timer.end,
    )
    stepper.start_epoch(0)
    hook = trainer.model.register_forward_hook(lambda *_: timer.end("loss"))
    warmup = min(_WARMUP_STEPS, trainer.loader.total_steps - 1)
    images = 0
    try:
        for number, batch in enumerate(trainer.loader.steps(), start=1):
            timer.end("reading")
            stepper.step(batch, number)
            images += batch.images
            if number == warmup:
                timer.seconds, images = dict.fromkeys(PARTS, 0.0), 0
            if number == warmup + _TIMED_STEPS:
                break
        stepper.settle()
    finally:
        hook.remove()
        trainer.stepper.start_epoch(0)
    steps = number - warmup
    return {part: seconds / steps for part, seconds in timer.seconds.items()}, images / steps


def changes(train: TrainSettings, on_gpu: bool) -> list[dict[str, bool]]:
    """Return the settings of speed to compare with those of a run, a single change in each."""
    precision = [] if train.fp16 else [{"bf16": not train.bf16}]
    of_gpus = [{"cuda_graphs": not train.cuda_graphs}, {"torch_compile": not train.torch_compile}] if on_gpu else []
    return [*precision, *of_gpus]


def step_rate(trainer: DetrTrainer) -> float:
    """Train on the first batch repeatedly and return images a second. Raises StepError."""
    trainer.setup()
    device, last = trainer.accelerator.device, trainer.loader.total_steps
    batch = next(iter(trainer.loader.steps()))
    trainer.model.train()
    for number in range(_RATE_WARMUP_STEPS):
        trainer.stepper.step(batch, min(number + 1, last))
    started_at, steps = device_time(device), 0
    while steps < _RATE_STEPS and time.perf_counter() - started_at < _RATE_SECONDS:
        trainer.stepper.step(batch, last)
        steps += 1
    seconds = device_time(device) - started_at
    trainer.stepper.settle()
    return steps * batch.images / seconds


def describe_rates(own: float, others: Mapping[str, float]) -> str:
    """Return a line on the speed of a step under the present settings, and under others by their names."""
    rates = ", ".join(f"{name} {rate:.1f} ({rate / own:.2f} times)" for name, rate in others.items())
    return f"a step without reading its images: {own:.1f} images/s with these settings; {rates or 'no other setting applies'}"
