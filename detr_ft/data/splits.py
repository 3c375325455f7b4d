"""Which images are trained on and which are held out: alike in their classes, and look-alikes never on both sides."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from detr_ft.data.duplicates import similar_groups
from detr_ft.data.schema import class_names
from detr_ft.errors import InputError

log = logging.getLogger(__name__)


def train_and_validation(
    train: Dataset,
    validation: Dataset | None,
    fingerprints: Sequence[bytes],
    validation_fraction: float,
    seed: int,
    fold: tuple[int, int] | None = None,
) -> tuple[Dataset, Dataset]:
    """The train and validation splits; where there is no validation, that fraction of train is held out, by the seed.

    With `fold`, k of n, the train split is cut into n parts, of which the k-th, from 1, is held out, and the data's own
    validation split is left alone. What is held out has its share of every class, and images that look alike, by the
    `fingerprints` of the train split's, stay together. Raises InputError where there is too little to hold out.
    """
    if fold is not None:
        number, of = fold
        if len(train) < of:
            raise InputError(f"{len(train)} train images can't be cut into {of} folds: bring more, or fewer folds")
        parts = partition(train, fingerprints, [1 / of] * of, seed)
        return _without(train, parts[number - 1]), train.select(parts[number - 1])
    if validation is not None:
        return train, validation
    held_out = round(len(train) * validation_fraction)
    if not 0 < held_out < len(train):
        raise InputError(
            f"the data has no validation split, and {validation_fraction:g} of {len(train)} train images is {held_out}: "
            "bring more images, or another data.validation_fraction"
        )
    kept, out = partition(train, fingerprints, [1 - validation_fraction, validation_fraction], seed)
    return train.select(kept), train.select(out)


def partition(split: Dataset, fingerprints: Sequence[bytes], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """The rows of a split in parts of these fractions, which add up to 1: each part has its share of every class.

    Rows whose images look alike, by their fingerprints, go together. Where that makes a part less than half or more than
    twice its size, the largest group is cut in two between neighbouring rows, and the next, until it doesn't; a warning
    says so. The same seed gives the same parts.
    """
    alike = similar_groups(fingerprints)
    alone = [[row] for row in sorted(set(range(len(split))) - {row for group in alike for row in group})]
    held, wanted = _held(split), _whole_numbers(len(split), fractions)
    cut: set[int] = set()
    parts = stratify(held, [*alike, *alone], fractions, seed)
    while not _balanced(parts, wanted) and any(len(group) > 1 for group in alike):
        largest = max(alike, key=len)
        alike.remove(largest)
        middle = len(largest) // 2
        alike += [largest[:middle], largest[middle:]]
        cut.update(largest)
        parts = stratify(held, [*alike, *alone], fractions, seed)
    if cut:
        log.warning(
            "%d images are of few scenes, seen again and again: to get parts of the size asked for, look-alikes among them "
            "came into several parts, so that figures on what is held out will be too good. Hold out whole scenes, as a "
            "validation split of your own",
            len(cut),
        )
    return parts


def _balanced(parts: Sequence[Sequence[int]], wanted: Sequence[int]) -> bool:
    return all(size / 2 <= len(part) <= 2 * size for part, size in zip(parts, wanted, strict=True))


def stratify(
    held: NDArray[np.int64], groups: Sequence[Sequence[int]], fractions: Sequence[float], seed: int
) -> list[list[int]]:
    """Groups of rows in parts of these fractions, so that each part has its share of every class; sorted rows of each.

    `held [N, K]` says which row holds which class. Sechidis et al., ECML 2011, algorithm 1, iterative stratification: the
    rarest class is dealt out first, each group to the part that wants most of it. Parts hold their share of a class to within
    two images and a tenth, but for a set in hundreds.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(groups))
    counts = np.stack([held[list(groups[place])].sum(0) for place in order])  # [G, K]
    sizes = np.array([len(groups[place]) for place in order])
    room = np.array(_whole_numbers(int(sizes.sum()), fractions), dtype=float)
    wanted = np.outer(fractions, counts.sum(0))
    part_of = np.full(len(order), -1)
    while (left := part_of < 0).any():
        totals = counts[left].sum(0)
        label = int(np.where(totals > 0, totals, np.iinfo(np.int64).max).argmin())
        for group in np.flatnonzero(left & (counts[:, label] > 0)):
            fits = room >= sizes[group] / 2
            choices = np.flatnonzero(fits) if fits.any() else np.array([int(room.argmax())])
            part = max(choices, key=lambda one: (wanted[one, label], room[one]))
            part_of[group] = part
            wanted[part] -= counts[group]
            room[part] -= sizes[group]
    return [
        sorted(row for place, part in zip(order, part_of, strict=True) if part == one for row in groups[place])
        for one in range(len(fractions))
    ]


def _held(split: Dataset) -> NDArray[np.int64]:
    """Which row holds which class, `[N, K+1]`; the last column marks rows without objects."""
    held = np.zeros((len(split), len(class_names(split)) + 1), dtype=np.int64)
    for row, objects in enumerate(split["objects"]):
        held[row, objects["category"] or [-1]] = 1
    return held


def _whole_numbers(total: int, fractions: Sequence[float]) -> list[int]:
    """The fractions of a total as whole numbers that add up to it."""
    ends = np.rint(np.cumsum(fractions) * total).astype(int)
    return np.diff(ends, prepend=0).tolist()  # type: ignore[no-any-return]


def _without(split: Dataset, rows: Sequence[int]) -> Dataset:
    return split.select(sorted(set(range(len(split))) - set(rows)))
