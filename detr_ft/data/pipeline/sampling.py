"""Batch sampling by (seed, epoch): images of similar shape together, rare classes more often.

A batch here is the images of one optimizer step, over all processes and micro-batches. It is divided among them
afterwards (`shard_batch`), so the images of a step do not depend on their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

# Images are sorted by shape within groups of this many batches: enough for batches of similar shape, few enough for shuffling.
_BATCHES_SORTED_TOGETHER = 16
# Noise of this deviation on the log of the aspect ratio, so that a small set is not divided into the same batches every epoch.
_LOG_ASPECT_NOISE = 0.1


class BatchSampler:
    """Batches of indices for each epoch; the last one may be smaller.

    The order depends on (seed, epoch) alone.
    `aspect_ratios [N]`, width over height of each image, puts images of similar shape together, so that less is padded.
    `repeats [N]`, at least 1, is the number of times that each image occurs in an epoch; fractions are drawn at random.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        aspect_ratios: Sequence[float] | None = None,
        repeats: Sequence[float] | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self._aspects = None if aspect_ratios is None else np.asarray(aspect_ratios, dtype=np.float64)
        self._repeats = np.ones(num_images) if repeats is None else np.asarray(repeats, dtype=np.float64)

    def __len__(self) -> int:
        """The number of batches of an epoch, the same for every epoch; with `repeats` from their sum."""
        return -(-self._num_drawn // self.batch_size)

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """Return the batches of an epoch, counted from 0."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self._drawn(random))
        if self._aspects is None:
            return _chunks(order, self.batch_size)
        shape = np.log(self._aspects) + random.normal(0, _LOG_ASPECT_NOISE, len(self._aspects))
        groups = _chunks(order, _BATCHES_SORTED_TOGETHER * self.batch_size)
        batches = [batch for group in groups for batch in _chunks(sorted(group, key=shape.item), self.batch_size)]
        whole = len(batches) - (len(batches[-1]) < self.batch_size)  # the incomplete batch stays last
        return [batches[index] for index in random.permutation(whole)] + batches[whole:]

    @property
    def _num_drawn(self) -> int:
        return round(float(self._repeats.sum()))

    def _drawn(self, random: np.random.Generator) -> NDArray[np.int64]:
        """Return the indices of an epoch: each `repeats` times, rounded so that their number is fixed."""
        shuffled = random.permutation(len(self._repeats))
        ends = np.floor(np.cumsum(self._repeats[shuffled]) + 0.5)
        ends[-1] = self._num_drawn
        return np.repeat(shuffled, np.diff(ends, prepend=0.0).astype(np.int64))


def shard_batch(batch: Sequence[int], size: int, processes: int) -> list[list[list[int]]]:
    """Divide a batch: for each process its micro-batches of at most `size` images.

    Every process has the same number. Neighbors stay together, because they have similar shapes. Micro-batches differ
    by at most one image, and may be empty.
    """
    rounds = -(-len(batch) // (size * processes))
    parts = np.array_split(np.asarray(batch, dtype=np.int64), rounds * processes)
    return [[part.tolist() for part in parts[process::processes]] for process in range(processes)]


def _chunks(values: Sequence[int] | NDArray[np.int64], size: int) -> list[list[int]]:
    return [[int(value) for value in values[start : start + size]] for start in range(0, len(values), size)]


def aspect_ratios(split: Dataset) -> list[float]:
    """Return width over height of each image, as stated; 1 if unknown."""
    if not len(split):
        return []
    table = split.select_columns(["width", "height"]).with_format("arrow")[
        :
    ]  # reading millions row by row would take minutes
    width, height = (table[name].to_numpy().astype(np.float64) for name in ("width", "height"))
    valid = (width > 0) & (height > 0)
    ratios: list[float] = np.divide(width, height, out=np.ones_like(width), where=valid).tolist()
    return ratios


def repeat_factors(split: Dataset, threshold: float) -> list[float]:
    """Return the repeat factor of each image, at least 1, so that rare classes occur more often.

    The factor of a class in the fraction f of the images is `sqrt(threshold / f)`; that of an image is the largest of
    its classes'. Gupta et al., LVIS, CVPR 2019, section 4.
    """
    classes = [set(objects["category"]) for objects in split["objects"]]
    images = Counter(label for labels in classes for label in labels)
    factors = {label: max(1.0, (threshold * len(classes) / count) ** 0.5) for label, count in images.items()}
    return [max((factors[label] for label in labels), default=1.0) for labels in classes]


def balanced_weights(split: Dataset) -> list[float]:
    """Return class weights for a class loss: the inverse square root of the number of boxes, 1 on average."""
    names = split.features["objects"]["category"].feature.names
    counts = Counter(label for objects in split["objects"] for label in objects["category"])
    raw = [1 / max(1, counts[label]) ** 0.5 for label in range(len(names))]
    return [len(raw) * weight / sum(raw) for weight in raw]
