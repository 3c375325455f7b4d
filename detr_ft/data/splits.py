"""Train and validation splits with the same proportions of classes, and no similar images in both."""

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
    """Return the train and validation splits; without a validation split, a fraction of train becomes one.

    With `fold`, k of n, the train split is divided into n parts, of which the k-th, from 1, is the validation split;
    the data's own validation split is not used. Parts have equal proportions of every class, and images that look
    alike, by the `fingerprints` of the train split, stay together. Raises InputError if there are too few images.
    """
    if fold is not None:
        number, of = fold
        if len(train) < of:
            raise InputError(
                f"data.fold: {len(train)} train images don't make {of} folds. Use fewer folds or more images."
            )
        parts = partition(train, fingerprints, [1 / of] * of, seed)
        return _without(train, parts[number - 1]), train.select(parts[number - 1])
    if validation is not None:
        return train, validation
    validation_size = round(len(train) * validation_fraction)
    if not 0 < validation_size < len(train):
        raise InputError(
            f"the data has no validation split, and {validation_fraction:g} of {len(train)} train images is "
            f"{validation_size}. Change data.validation_fraction, or use more images."
        )
    train_rows, validation_rows = partition(train, fingerprints, [1 - validation_fraction, validation_fraction], seed)
    return train.select(train_rows), train.select(validation_rows)


def partition(split: Dataset, fingerprints: Sequence[bytes], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Divide the rows of a split into parts with equal proportions of every class.

    The fractions sum to 1. Rows whose images look alike, by their fingerprints, stay together. If a part would get less
    than half or more than twice its size, the largest group is halved between neighboring rows, then the next; a
    warning reports it. Deterministic for a seed.
    """
    similar = similar_groups(fingerprints)
    single = [[row] for row in sorted(set(range(len(split))) - {row for group in similar for row in group})]
    presence, sizes = _class_presence(split), _whole_numbers(len(split), fractions)
    divided: set[int] = set()
    parts = stratify(presence, [*similar, *single], fractions, seed)
    while not _balanced(parts, sizes) and any(len(group) > 1 for group in similar):
        largest = max(similar, key=len)
        similar.remove(largest)
        middle = len(largest) // 2
        similar += [largest[:middle], largest[middle:]]
        divided.update(largest)
        parts = stratify(presence, [*similar, *single], fractions, seed)
    if divided:
        log.warning(
            "%d images show few scenes many times: to reach the requested sizes, similar images are in several parts, and "
            "metrics on the validation split will be too high. Provide a validation split of separate scenes.",
            len(divided),
        )
    return parts


def _balanced(parts: Sequence[Sequence[int]], sizes: Sequence[int]) -> bool:
    return all(size / 2 <= len(part) <= 2 * size for part, size in zip(parts, sizes, strict=True))


def stratify(
    presence: NDArray[np.int64], groups: Sequence[Sequence[int]], fractions: Sequence[float], seed: int
) -> list[list[int]]:
    """Distribute groups of rows over parts with equal proportions of classes; sorted rows of each.

    `presence [N, K]` is 1 if a row has the class. Sechidis et al., ECML 2011, algorithm 1, iterative stratification:
    the rarest class is distributed first, each group to the part that needs most of it. The images of a class in a part
    deviate by at most two and a tenth from its proportion, except for one data set in several hundred.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(groups))
    counts = np.stack([presence[list(groups[index])].sum(0) for index in order])  # [G, K]
    sizes = np.array([len(groups[index]) for index in order])
    room = np.array(_whole_numbers(int(sizes.sum()), fractions), dtype=float)
    wanted = np.outer(fractions, counts.sum(0))
    part_of = np.full(len(order), -1)
    while (left := part_of < 0).any():
        totals = counts[left].sum(0)
        label = int(np.where(totals > 0, totals, np.iinfo(np.int64).max).argmin())
        for group in np.flatnonzero(left & (counts[:, label] > 0)):
            fits = room >= sizes[group] / 2
            choices = np.flatnonzero(fits) if fits.any() else np.array([int(room.argmax())])
            part = max(choices, key=lambda choice: (wanted[choice, label], room[choice]))
            part_of[group] = part
            wanted[part] -= counts[group]
            room[part] -= sizes[group]
    return [
        sorted(row for index, part in zip(order, part_of, strict=True) if part == number for row in groups[index])
        for number in range(len(fractions))
    ]


def _class_presence(split: Dataset) -> NDArray[np.int64]:
    """Return 1 where a row has a class, `[N, K+1]`; the last column is for rows without objects."""
    presence = np.zeros((len(split), len(class_names(split)) + 1), dtype=np.int64)
    for row, objects in enumerate(split["objects"]):
        presence[row, objects["category"] or [-1]] = 1
    return presence


def _whole_numbers(total: int, fractions: Sequence[float]) -> list[int]:
    """Return the fractions of a total as whole numbers that sum to it."""
    ends = np.rint(np.cumsum(fractions) * total).astype(int)
    return np.diff(ends, prepend=0).tolist()  # type: ignore[no-any-return]


def _without(split: Dataset, rows: Sequence[int]) -> Dataset:
    return split.select(sorted(set(range(len(split))) - set(rows)))
