"""A data set of training examples."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from detr_ft.data.pipeline.transforms import TrainTransform


class TrainExamples(TorchDataset[dict[str, Any]]):
    """The rows of a split as training examples, of the epoch that `epoch` says; `at` gives those of any.

    Augmentation is drawn from (seed, epoch, index) alone.
    """

    def __init__(self, split: Dataset, transform: TrainTransform, seed: int) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The example of a row, without normalisation. Raises ImageError where its image can't be read."""
        return self.at(self.epoch, index)

    def at(self, epoch: int, index: int) -> dict[str, Any]:
        """The example of a row as an epoch, counted from 0, shows it."""
        random = np.random.default_rng((self.seed, epoch, index))
        return self.transform(self.split[index], epoch, random, self._another)

    def _another(self, place: float) -> dict[str, Any]:
        """The row at a place from 0 to 1."""
        row: dict[str, Any] = self.split[int(place * len(self.split))]
        return row
