"""From examples to a batch: images padded to the largest, with the mask that says what is image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from detr_ft.data.transforms import TrainTransform


def collate(examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`pixel_values [B, 3, H, W]`, `pixel_mask [B, H, W]` (1 where image) and `labels`, a list of B dictionaries."""
    height = max(example["pixel_values"].shape[1] for example in examples)
    width = max(example["pixel_values"].shape[2] for example in examples)
    pixels = torch.zeros(len(examples), 3, height, width)
    mask = torch.zeros(len(examples), height, width, dtype=torch.long)
    for index, example in enumerate(examples):
        _, h, w = example["pixel_values"].shape
        pixels[index, :, :h, :w] = example["pixel_values"]
        mask[index, :h, :w] = 1
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": [example["labels"] for example in examples]}


class TrainExamples(TorchDataset[dict[str, Any]]):
    """The rows of a split as training examples; augmentation is drawn from (seed, epoch, index) alone."""

    def __init__(self, split: Dataset, transform: TrainTransform, seed: int) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.transform(self.split[index], (self.seed, self.epoch, index))
