"""Totals and random numbers of an optimizer step, independent of how its images are divided."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from detr_ft.structures import StepTotals
from detr_ft.training.step_loader import MicroBatch, StepBatch
from detr_ft.utils.collectives import sum_over_processes


def step_totals(batch: StepBatch, classes: int, processes: int, device: torch.device) -> StepTotals:
    """Return images and objects of a step over all processes, divided by the number of processes.

    Losses divide by these. The sum of the losses of all micro-batches, averaged over processes as distributed training
    averages gradients, is then the loss of the whole step. Every process must call this once a step.
    """
    objects = _count_objects([micro for micro in batch.micro_batches if micro.counts], classes)
    objects = objects.to(device, non_blocking=True)
    return StepTotals(batch.images / processes, sum_over_processes(objects) / processes, processes)


def totals_of_batch(micro: MicroBatch, classes: int) -> StepTotals:
    """Return the totals of a batch that one process uses alone, outside of a step."""
    return StepTotals(float(len(micro.rows)), _count_objects([micro], classes), 1)


def _count_objects(micro_batches: Sequence[MicroBatch], classes: int) -> Tensor:
    parts = [label["class_labels"] for micro in micro_batches for label in micro.inputs["labels"]]
    labels = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.long)
    labels = labels.clamp(0, classes - 1)  # the criterion reports labels out of range
    return torch.bincount(labels, minlength=classes).float()


def add_up(values: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the sum of the terms of micro-batches, by name."""
    sums: dict[str, Tensor] = {}
    for terms in values:
        sums = {name: sums[name] + value if name in sums else value for name, value in terms.items()}
    return sums


def seed_step(seed: int, step: int, process: int) -> None:
    """Seed the random numbers of a step: a resumed run draws the same dropout."""
    state = int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)
