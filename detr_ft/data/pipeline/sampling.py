"""Which images make a batch: images of similar shape together, rare classes more often, all drawn from (seed, epoch).

A batch here is what one step of the optimizer sees, on all processes and in all micro-batches: how it is shared out among
them comes after (`shares`), so that it doesn't matter which images a step holds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

# Images are sorted by shape within groups of so many batches: enough to fill most of a batch, few enough to stay random.
_SORTED_TOGETHER = 16
# Shapes are taken for this much other than they are, so that a small set is not cut into the same batches every epoch.
_BLUR = 0.1


class BatchSampler:
    """Batches of indices, each epoch in another order: that of (seed, epoch) alone. The last one may be smaller.

    `aspects [N]`, width over height of each image, puts images of similar shape together, so that less is padded.
    `repeats [N]`, at least 1, is how often each image comes in an epoch; what is left of a whole number is drawn.
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
        """The number of batches of an epoch; with `repeats` it is that on average, and every epoch keeps to it."""
        return -(-self._num_drawn // self.batch_size)

    def of_epoch(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, counted from 0."""
        random = np.random.default_rng((self.seed, epoch))
        order = random.permutation(self._drawn(random))
        if self._aspects is None:
            return _chunks(order, self.batch_size)
        shape = np.log(self._aspects) + random.normal(0, _BLUR, len(self._aspects))
        groups = _chunks(order, _SORTED_TOGETHER * self.batch_size)
        batches = [batch for group in groups for batch in _chunks(sorted(group, key=shape.item), self.batch_size)]
        whole = len(batches) - (len(batches[-1]) < self.batch_size)  # what is left over stays last
        return [batches[place] for place in random.permutation(whole)] + batches[whole:]

    @property
    def _num_drawn(self) -> int:
        return round(float(self._repeats.sum()))

    def _drawn(self, random: np.random.Generator) -> NDArray[np.int64]:
        """The indices of an epoch: each as often as `repeats` says, rounded up or down so that the sum is the epoch's."""
        shuffled = random.permutation(len(self._repeats))
        ends = np.floor(np.cumsum(self._repeats[shuffled]) + 0.5)
        ends[-1] = self._num_drawn
        return np.repeat(shuffled, np.diff(ends, prepend=0.0).astype(np.int64))


def shard_batch(batch: Sequence[int], size: int, processes: int) -> list[list[list[int]]]:
    """A batch shared out: for each process its micro-batches of at most `size` images, as many as every other has.

    Neighbours are kept together, since they are of similar shape. Where the images don't go round, shares differ by one,
    and that of a process may be empty.
    """
    rounds = -(-len(batch) // (size * processes))
    parts = np.array_split(np.asarray(batch, dtype=np.int64), rounds * processes)
    return [[part.tolist() for part in parts[process::processes]] for process in range(processes)]


def _chunks(values: Sequence[int] | NDArray[np.int64], size: int) -> list[list[int]]:
    return [[int(value) for value in values[start : start + size]] for start in range(0, len(values), size)]


def aspect_ratios(split: Dataset) -> list[float]:
    """Width over height of each image, as stated; 1 where nothing is."""
    if not len(split):
        return []
    table = split.select_columns(["width", "height"]).with_format("arrow")[:]  # one by one, millions would take minutes
    width, height = (table[name].to_numpy().astype(np.float64) for name in ("width", "height"))
    known = (width > 0) & (height > 0)
    told: list[float] = np.divide(width, height, out=np.ones_like(width), where=known).tolist()
    return told


def repeat_factors(split: Dataset, threshold: float) -> list[float]:
    """How often each image of a split is to come in an epoch, at least 1, so that rare classes come more often.

    A class in the fraction f of the images wants `sqrt(threshold / f)`; an image is repeated as its rarest class wants it.
    Gupta et al., LVIS, CVPR 2019, section 4.
    """
    held = [set(objects["category"]) for objects in split["objects"]]
    images = Counter(label for labels in held for label in labels)
    wanted = {label: max(1.0, (threshold * len(held) / count) ** 0.5) for label, count in images.items()}
    return [max((wanted[label] for label in labels), default=1.0) for labels in held]


def balanced_weights(split: Dataset) -> list[float]:
    """A weight for each class, in their order, for a class loss: one over the square root of its boxes, 1 on average."""
    names = split.features["objects"]["category"].feature.names
    counts = Counter(label for objects in split["objects"] for label in objects["category"])
    raw = [1 / max(1, counts[label]) ** 0.5 for label in range(len(names))]
    return [len(raw) * weight / sum(raw) for weight in raw]
