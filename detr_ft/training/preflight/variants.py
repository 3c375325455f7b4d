"""What settings of speed give here: the same step, by each."""

from __future__ import annotations

import time
from collections.abc import Mapping

from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.environment import device_time

_WARM, _MOST, _SECONDS = 4, 10, 6.0  # steps before timing begins (a CUDA graph is recorded in the second), and then


def changes(train: TrainSettings, on_gpu: bool) -> list[dict[str, bool]]:
    """Settings to try beside those of a run, one changed in each."""
    precision = [] if train.fp16 else [{"bf16": not train.bf16}]
    of_gpus = [{"cuda_graphs": not train.cuda_graphs}, {"torch_compile": not train.torch_compile}] if on_gpu else []
    return [*precision, *of_gpus]


def step_rate(trainer: DetrTrainer) -> float:
    """Images a second of the first step's batch, taken again and again; the trainer is used up. Raises StepError."""
    work = next(iter(trainer.feed.steps()))
    trainer.model.train()
    for number in range(_WARM):
        trainer.stepper.take(work, min(number + 1, trainer.steps))
    device = trainer.accelerator.device
    began, steps = device_time(device), 0
    while steps < _MOST and time.perf_counter() - began < _SECONDS:
        trainer.stepper.take(work, trainer.steps)
        steps += 1
    ended = device_time(device)
    trainer.stepper.settle()
    return steps * work.images / (ended - began)


def in_words(own: float, others: Mapping[str, float]) -> str:
    """One line on the rates of a step as it is set, and otherwise."""
    told = ", ".join(f"{name} {rate:.1f} ({rate / own:.2f} times)" for name, rate in others.items())
    return f"a step alone, with its batch at hand: {own:.1f} images/s as it is set; {told or 'there is nothing else to try'}"
