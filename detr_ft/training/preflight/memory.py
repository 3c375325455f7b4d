"""Try the largest batch before training, and reduce the micro-batch until it fits in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from torch import nn

from detr_ft.criterion import describe_exception
from detr_ft.errors import InputError
from detr_ft.structures import StepTotals
from detr_ft.training.step import EagerForwardBackward
from detr_ft.training.trainer import DetrTrainer, TrainingError
from detr_ft.utils.collectives import max_over_processes
from detr_ft.utils.environment import peak_memory_mib, reset_peak_memory
from detr_ft.utils.user_code import is_interrupt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch, as if each image had the most objects, and the peak memory of its gradient."""

    images: int
    height: int
    width: int
    objects: int
    mebibytes: int | None  # None if it does not fit

    def __str__(self) -> str:
        return f"{self.images} images of {self.width}x{self.height} pixels with {self.objects} objects each"


def fit_memory(trainer: DetrTrainer) -> None:
    """Halve the micro-batch until the largest batch fits, on all processes alike, and log it.

    Raises InputError if a single image does not fit.
    """
    trainer.setup()
    stepper, micro_batch_size = trainer.stepper, trainer.settings.per_device_train_batch_size
    while True:
        largest = try_largest(trainer, stepper.max_images)
        if not max_over_processes(int(largest.mebibytes is None), trainer.accelerator.device):
            break
        if largest.images == 1:
            raise InputError(
                f"train: out of memory with one image of {largest.width}x{largest.height} pixels with {largest.objects} objects. "
                "Use a smaller data.longest_edge or train.gradient_checkpointing=true."
            )
        stepper.limit_images(largest.images // 2)
        torch.cuda.empty_cache()
    if stepper.max_images < micro_batch_size:
        logger.warning(
            "out of memory with %d images at once in the largest batch (%dx%d pixels, %d objects each): they pass through the "
            "model %d at a time, for the same steps with the same gradient",
            micro_batch_size, largest.width, largest.height, largest.objects, stepper.max_images,
        )  # fmt: skip
    logger.info("the largest batch (%s) takes %d MiB", largest, largest.mebibytes)


def try_largest(trainer: DetrTrainer, max_images: int) -> LargestBatch:
    """Compute and discard the gradient of the largest batch of at most so many images."""
    height, width = trainer.loader.canvas or _largest_shape(trainer)
    objects = max(len(row["category"]) for row in trainer.train_dataset["objects"])
    images = min(max_images, len(trainer.train_dataset))
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
    fits = _gradient_fits(trainer, inputs)
    return LargestBatch(images, height, width, objects, peak_memory_mib() if fits else None)


def _gradient_fits(trainer: DetrTrainer, inputs: dict[str, Any]) -> bool:
    stepper, accelerator, model = trainer.stepper, trainer.accelerator, trainer.model
    wrapped = stepper.forward_backward.wrapped
    # Constant totals, so that no collective is needed.
    totals = StepTotals(1.0, torch.ones(model.config.num_labels, device=accelerator.device))
    with _restored_buffers(model), accelerator.no_sync(wrapped), stepper.attached.step_totals(totals):
        try:
            moved = stepper.format.normalize(send_to_device(inputs, accelerator.device))
            EagerForwardBackward(accelerator, wrapped).run(moved, 1.0)
        except torch.OutOfMemoryError:
            return False
        except InputError:
            raise
        except BaseException as error:  # the user's term may raise any exception
            if is_interrupt(error):
                raise
            message = describe_exception(error, stepper.epoch_criterion)
            raise TrainingError(f"the largest batch, before the first step: {message}") from error
        finally:
            model.zero_grad()
    return True


def _largest_shape(trainer: DetrTrainer) -> tuple[int, int]:
    """Return height and width in pixels of the largest batch of the first epoch."""
    split, form, loader = trainer.train_dataset, trainer.stepper.format, trainer.loader
    sizes = [form.resized(w, h) for w, h in zip(split["width"], split["height"], strict=True)]
    steps = loader.batches.of_epoch(0)  # all images of a step have the same padding
    shapes = [(max(sizes[row][1] for row in step), max(sizes[row][0] for row in step)) for step in steps]
    height, width = max(shapes, key=lambda shape: shape[0] * shape[1])
    return -(-height // loader.rounding) * loader.rounding, -(-width // loader.rounding) * loader.rounding


@contextmanager
def _restored_buffers(model: nn.Module) -> Iterator[None]:
    """Switch to training mode within the context, then restore the mode and the statistics of live norms."""
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    training = model.training
    model.train()
    try:
        yield
    finally:
        for name, value in model.named_buffers():
            value.copy_(buffers[name])
        model.train(training)
