"""Training examples: a row of the schema to pixels and labels, and examples to a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.random import Generator
from torch.utils.data import Dataset as TorchDataset

from detr_ft.data.augmentation.builtin import Augmentation, Mixing
from detr_ft.data.box_frame import to_fractions
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.pipeline.sample import Sample, fault_of, read_sample
from detr_ft.data.schema import provenance
from detr_ft.errors import InputError


@dataclass(frozen=True)
class TrainTransform:
    """`(row, epoch, random, another) -> {pixel_values [3, H, W], labels}`: a training example.

    The result depends only on the arguments. `pixel_values` are bytes, resized, neither normalized nor padded. `labels`
    has the keys of transformers: `class_labels [T]`, `boxes [T, 4]` (cxcywh in fractions) and `image_id [1]`. The
    augmentation draws from `random`, and `another(position)` returns the row at a position from 0 to 1. Images are
    mixed in epochs before `mixing_ends`. Raises InputError, with the image, if the augmentation returns an invalid
    sample.
    """

    format: ImageFormat
    augment: Augmentation | None = None
    mixing_ends: int | None = None

    def __call__(
        self,
        row: Mapping[str, Any],
        epoch: int,
        random: Generator,
        another: Callable[[float], Mapping[str, Any]],
    ) -> dict[str, Any]:
        sample = read_sample(row)
        augment = self._augment_at(epoch)
        if augment is not None:
            augmented = augment(sample, random, lambda: read_sample(another(random.random())))
            fault = fault_of(augmented)
            if fault is not None:
                raise InputError(f"{provenance(row['image'], row['image_id'])}: the augmentation {augment!r} {fault}")
            sample = augmented
        sample = self._fit(sample)
        objects = sample.keep(~sample.crowd)
        return {
            "pixel_values": sample.image,
            "labels": {
                "class_labels": objects.labels,
                "boxes": to_fractions(objects.boxes, (sample.width, sample.height)),
                "image_id": torch.tensor([row["image_id"]]),
            },
        }

    def _augment_at(self, epoch: int) -> Augmentation | None:
        if isinstance(self.augment, Mixing) and self.mixing_ends is not None and epoch >= self.mixing_ends:
            return self.augment.without_mixing()
        return self.augment

    def _fit(self, sample: Sample) -> Sample:
        """Return the sample at the size that the model sees."""
        width, height = self.format.resized(sample.width, sample.height)
        return sample.resize(*(max(1, round(side * sample.scale)) for side in (width, height)))


class TrainDataset(TorchDataset[dict[str, Any]]):
    """The rows of a split as training examples of the epoch in `epoch`; `at` returns those of any epoch.

    The augmentation depends only on (seed, epoch, index).
    """

    def __init__(self, split: Dataset, transform: TrainTransform, seed: int) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return the example of a row, not normalized. Raises ImageError if its image can't be read."""
        return self.at(self.epoch, index)

    def at(self, epoch: int, index: int) -> dict[str, Any]:
        """Return the example of a row in an epoch, counted from 0."""
        random = np.random.default_rng((self.seed, epoch, index))
        return self.transform(self.split[index], epoch, random, self._another)

    def _another(self, position: float) -> dict[str, Any]:
        """Return the row at a position from 0 to 1."""
        row: dict[str, Any] = self.split[int(position * len(self.split))]
        return row


def collate(
    examples: Sequence[dict[str, Any]], canvas: tuple[int, int] | None = None, rounding: int = 1
) -> dict[str, Any]:
    """Return `pixel_values [B, 3, H, W]` (bytes), `pixel_mask [B, H, W]` and `labels`, a list of B.

    The mask is true inside images. Images are padded to the `canvas` (height, width), or without one to the largest of
    them, with its sides rounded up to a multiple of `rounding` so that batches have few shapes. Convolutions detect the
    border of the padding, so use a model on the canvas that it was trained on. Bytes move to a device four times as
    fast as floats; `ImageFormat.normalize` converts them there.
    """
    largest = (max(example["pixel_values"].shape[side] for example in examples) for side in (1, 2))
    height, width = canvas or (-(-side // rounding) * rounding for side in largest)
    pixels = torch.zeros(len(examples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)  # channels last
    mask = torch.zeros(len(examples), height, width, dtype=torch.bool)
    for index, example in enumerate(examples):
        _, h, w = example["pixel_values"].shape
        pixels[index, :, :h, :w] = example["pixel_values"]
        mask[index, :h, :w] = True
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": [example["labels"] for example in examples]}


def pad(batch: Mapping[str, Any], height: int, width: int) -> dict[str, Any]:
    """Return a batch of `collate` with its images padded to `height` and `width`, at least those it has."""
    pixels, mask = batch["pixel_values"], batch["pixel_mask"]
    count, _, own_height, own_width = pixels.shape
    if (own_height, own_width) == (height, width):
        return dict(batch)
    pinned = pixels.is_pinned() if torch.cuda.is_available() else False
    padded = torch.zeros(count, height, width, 3, dtype=pixels.dtype, pin_memory=pinned).permute(0, 3, 1, 2)
    padded_mask = torch.zeros(count, height, width, dtype=mask.dtype, pin_memory=pinned)
    padded[:, :, :own_height, :own_width] = pixels
    padded_mask[:, :own_height, :own_width] = mask
    return {**batch, "pixel_values": padded, "pixel_mask": padded_mask}
