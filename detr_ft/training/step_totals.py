"""What a whole step holds, so that no way of sharing it out among processes and micro-batches changes its gradient."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor

from detr_ft.structures import StepTotals
from detr_ft.training.step_loader import StepBatch


def step_totals(work: StepBatch, classes: int, processes: int, device: torch.device) -> StepTotals:
    """What a step holds over all processes and micro-batches, divided by the processes: losses divide by it.

    The sum of the losses of all micro-batches, averaged over processes as distributed training averages gradients, is
    then the loss of the whole step at once. Each process calls this once a step, even with nothing to give.
    """
    own = [one["class_labels"] for micro in work.share if micro.counts for one in micro.inputs["labels"]]
    labels = torch.cat(own) if own else torch.zeros(0, dtype=torch.long)
    held = torch.bincount(
        labels.clamp(0, classes - 1), minlength=classes
    ).float()  # the criterion tells of labels beyond
    held = held.to(device, non_blocking=True)
    if processes > 1:
        distributed.all_reduce(held)
    return StepTotals(work.images / processes, held / processes)


def add_up(values: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The terms of micro-batches as those of the step."""
    sums: dict[str, Tensor] = {}
    for one in values:
        sums = {name: sums[name] + value if name in sums else value for name, value in one.items()}
    return sums


def over_processes(values: Mapping[str, Tensor], processes: int) -> dict[str, Tensor]:
    """The mean of each value over the processes; all of them hold the same names."""
    if processes == 1:
        return dict(values)
    joined = torch.stack([value.float() for value in values.values()])
    distributed.all_reduce(joined)
    return dict(zip(values, joined / processes, strict=True))


def seed_step(seed: int, step: int, process: int) -> None:
    """Draw what is random in a step, dropout above all, from (seed, step, process): a run that goes on draws it again."""
    drawn = int(np.random.SeedSequence((seed, step, process)).generate_state(1)[0])
    random.seed(drawn)
    np.random.seed(drawn)
    torch.manual_seed(drawn)
