"""Try the largest batch, and reduce the micro-batch until it fits in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from detr_ft.errors import InputError
from detr_ft.structures import StepTotals
from detr_ft.training.interrupts import agreed
from detr_ft.training.trainer import DetrTrainer
from detr_ft.utils.environment import peak_memory_mib, reset_peak_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worst:
    """The largest batch that the plan holds, as if each of its images had the most objects: what it takes."""

    images: int
    height: int
    width: int
    objects: int
    mebibytes: int | None  # None where it did not fit

    @property
    def words(self) -> str:
        """The batch in words."""
        return f"{self.images} images of {self.width}x{self.height} pixels with {self.objects} objects each"


def fit_memory(trainer: DetrTrainer) -> None:
    """Halve how many images go through the model at once until the worst batch fits, on all processes alike, and say so.

    Raises InputError where a single image is too much.
    """
    stepper = trainer.stepper
    while True:
        worst = try_worst(trainer, stepper.largest)
        if not agreed(int(worst.mebibytes is None), trainer.accelerator.num_processes, trainer.accelerator.device):
            break
        if worst.images == 1:
            raise InputError(
                f"one image of {worst.width}x{worst.height} pixels with {worst.objects} objects is more than memory holds: "
                "a smaller data.longest_edge, or train.gradient_checkpointing=true, takes less"
            )
        stepper.largest = worst.images // 2
        torch.cuda.empty_cache()
    if stepper.largest < trainer.settings.per_device_train_batch_size:
        logger.warning(
            "%d images at once are more than memory holds at the worst (%dx%d pixels, %d objects each): they go through the "
            "model by %d, for the same steps with the same gradient",
            trainer.settings.per_device_train_batch_size, worst.width, worst.height, worst.objects, stepper.largest,
        )  # fmt: skip
    logger.info("the worst batch (%s) takes %d MiB", worst.words, worst.mebibytes)


def try_worst(trainer: DetrTrainer, most: int) -> Worst:
    """Take the gradient of the worst batch, of at most so many images, and forget it: nothing of the trainer changes."""
    height, width = trainer.format.canvas or _largest_shape(trainer)
    objects = max(len(one["category"]) for one in trainer.examples.split["objects"])
    images = min(most, len(trainer.examples))
    label = {
        "class_labels": torch.zeros(objects, dtype=torch.long),
        "boxes": torch.tensor([0.5, 0.5, 0.2, 0.2]).repeat(objects, 1),
        "image_id": torch.tensor([0]),
    }
    inputs = {
        "pixel_values": torch.zeros(images, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2),
        "pixel_mask": torch.ones(images, height, width, dtype=torch.bool),
        "labels": [label] * images,
    }
    reset_peak_memory()
    with _untouched(trainer.model), trainer.accelerator.no_sync(trainer.wrapped):
        fits = _gradient(trainer, inputs)
    return Worst(images, height, width, objects, peak_memory_mib() if fits else None)


def _gradient(trainer: DetrTrainer, inputs: Mapping[str, Any]) -> bool:
    # Said here, so that the processes need not ask each other.
    trainer.attached.step = StepTotals(
        1.0, torch.ones(trainer.model.config.num_labels, device=trainer.accelerator.device)
    )
    try:
        moved = trainer.format.normalize(send_to_device(dict(inputs), trainer.accelerator.device))
        trainer.wrapped(**moved).loss.backward()
    except torch.OutOfMemoryError:
        return False
    finally:
        trainer.model.zero_grad()
        trainer.attached.step = None
    return True


def _largest_shape(trainer: DetrTrainer) -> tuple[int, int]:
    """Height and width of the largest batch of the first epoch, in pixels, by the sizes of its images."""
    split, form = trainer.examples.split, trainer.format
    sizes = [form.resized(w, h) for w, h in zip(split["width"], split["height"], strict=True)]
    batches = [part for _, _, _, parts in _first_epoch(trainer) for part in parts if part]
    shapes = [(max(sizes[row][1] for row in part), max(sizes[row][0] for row in part)) for part in batches]
    height, width = max(shapes, key=lambda shape: shape[0] * shape[1])
    rounding = trainer.feed.rounding
    return -(-height // rounding) * rounding, -(-width // rounding) * rounding


def _first_epoch(trainer: DetrTrainer) -> Iterator[tuple[int, int, int, list[list[int]]]]:
    for step in trainer.feed.plan(0, 0):
        if step[0] > 0:
            return
        yield step


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Norms that learn keep their figures, and the model its mode."""
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training = model.training
    model.train()
    try:
        yield
    finally:
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
        model.train(training)
