"""Totals and random numbers of an optimizer step, independent of how its images are divided."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from detr_ft.data.pipeline.dataset import pad
from detr_ft.structures import StepTotals
from detr_ft.training.step_loader import MicroBatch, StepBatch
from detr_ft.utils.collectives import max_on_hosts, sum_over_processes


def padded_alike(batch: StepBatch) -> StepBatch:
    """Return a step whose images have the padding that they would have in one batch, over all processes.

    Convolutions detect the border of the padding: with the padding of each part, the loss would depend on the division.
    Every process must call this once a step.
    """
    shapes = [micro.inputs["pixel_values"].shape for micro in batch.micro_batches]
    height, width = max_on_hosts([max(shape[side] for shape in shapes) for side in (2, 3)])
    micro_batches = [replace(micro, inputs=pad(micro.inputs, height, width)) for micro in batch.micro_batches]
    return replace(batch, micro_batches=micro_batches)


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
