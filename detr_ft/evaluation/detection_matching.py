"""Detections matched to objects by COCO's rules: the basis of all metrics.

Arrays of numbers rather than one record per object: two thousand images with a hundred detections each take a few tens of
megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS: Floats = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
MAX_DETECTIONS = 100  # of each class in each image
_PAIRS_PER_CHUNK = 2_000_000  # bounds the memory


@dataclass(frozen=True, eq=False)
class GroundTruthArrays:
    """Objects: `image [P]` (0 to I-1), `label [P]`, `box [P, 4]` xywh in pixels, `area [P]`, `crowd [P]`."""

    image: Ints
    label: Ints
    box: Floats
    area: Floats
    crowd: Bools


@dataclass(frozen=True, eq=False)
class DetectionArrays:
    """Detections: `image [D]`, `label [D]`, `box [D, 4]` xywh in pixels, `score [D]`."""

    image: Ints
    label: Ints
    box: Floats
    score: Floats

    def take(self, rows: Ints | Bools) -> DetectionArrays:
        """Return the detections at some rows."""
        return DetectionArrays(self.image[rows], self.label[rows], self.box[rows], self.score[rows])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Overlapping boxes of one image: `detection [N]`, `object [N]`, `iou [N]`, sorted by detection."""

    detection: Ints
    object: Ints
    iou: Floats


@dataclass(frozen=True, eq=False)
class DetectionMatches:
    """Detections sorted by class and falling score, with the objects that they overlap.

    `rank [D]` is the number of better detections of the same class in the same image.
    """

    names: Sequence[str]
    num_images: int
    objects: GroundTruthArrays
    detections: DetectionArrays
    rank: Ints
    pairs: Pairs

    def counted(self, area: str) -> Bools:
        """`[P]`: the objects that count, without crowds and those of other sizes; `area` is in `AREAS`."""
        low, high = AREAS[area]
        return ~self.objects.crowd & (self.objects.area >= low) & (self.objects.area <= high)

    def partner(self, area: str) -> Ints:
        """`[T, D]`: the object that each detection is matched to at each of the ten thresholds, or -1."""
        return _match(self, self.counted(area))

    def outcomes(self, area: str) -> tuple[Bools, Bools]:
        """`[T, D]` twice: is the detection correct, and does it count.

        A detection matched to a crowd or to an object of another size does not count.
        """
        counted, partner = self.counted(area), self.partner(area)
        low, high = AREAS[area]
        size = self.detections.box[:, 2] * self.detections.box[:, 3]
        inside = (size >= low) & (size <= high)
        matched = partner >= 0
        of_interest = np.append(counted, False)[partner]  # -1 reads the last
        return matched & of_interest, np.where(matched, of_interest, inside)

    @cached_property
    def class_slices(self) -> list[slice]:
        """The rows of the detections of each class."""
        edges = np.searchsorted(self.detections.label, np.arange(len(self.names) + 1))
        return [slice(int(low), int(high)) for low, high in pairwise(edges)]

    def objects_per_class(self, area: str = "all") -> Ints:
        """`[K]`: the number of objects that count."""
        return np.bincount(self.objects.label[self.counted(area)], minlength=len(self.names))


def match_detections(
    names: Sequence[str], num_images: int, objects: GroundTruthArrays, detections: DetectionArrays
) -> DetectionMatches:
    """Match the best hundred detections of each class in each image to the objects of that class there.

    Detections are matched best first, equal ones in the order of their images, each to the free object with the largest
    IoU, and to one that counts before one that does not. The protocol of Lin et al., Microsoft COCO (2014), as in
    pycocotools.
    """
    order = np.lexsort((np.arange(len(detections.score)), detections.image, -detections.score, detections.label))
    detections = detections.take(order)
    rank = _ranks(detections.image, detections.label, num_images)
    best = rank < MAX_DETECTIONS
    detections, rank = detections.take(best), rank[best]
    return DetectionMatches(
        names, num_images, objects, detections, rank, overlapping_pairs(detections, objects, THRESHOLDS[0])
    )


def overlapping_pairs(
    detections: DetectionArrays, objects: GroundTruthArrays, min_iou: float, same_class: bool = True
) -> Pairs:
    """Return the pairs of a detection and an object of one image with an IoU of `min_iou` or more.

    By default of the same class. Those of a detection are sorted by IoU, equal ones by the object's row; the last is
    the first choice of the matching.
    """
    several = max(objects.label.max(initial=0), detections.label.max(initial=0)) + 1 if same_class else 0
    object_group = objects.image * several + objects.label if same_class else objects.image
    group = detections.image * several + detections.label if same_class else detections.image
    by_group = np.argsort(object_group, kind="stable")
    first = np.searchsorted(object_group[by_group], group, side="left")
    count = np.searchsorted(object_group[by_group], group, side="right") - first
    parts = []
    total = np.cumsum(count)
    low = 0
    while low < len(group):
        before = total[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(total, before + _PAIRS_PER_CHUNK, side="right")))
        rows = np.repeat(np.arange(low, high), count[low:high])
        inside = np.arange(len(rows)) - np.repeat(total[low:high] - count[low:high] - before, count[low:high])
        others = by_group[first[rows] + inside]
        iou = box_iou(detections.box[rows], objects.box[others], objects.crowd[others])
        near = iou >= min_iou
        parts.append((rows[near], others[near], iou[near]))
        low = high
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    rows, others, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((others, iou, rows))
    return Pairs(rows[order], others[order], iou[order])


def box_iou(detections: Floats, objects: Floats, crowd: Bools) -> Floats:
    """`[N]`: the IoU of boxes xywh, row by row; with a crowd, the fraction of the detection inside it."""
    low = np.maximum(detections[:, :2], objects[:, :2])
    high = np.minimum(detections[:, :2] + detections[:, 2:], objects[:, :2] + objects[:, 2:])
    sides = high - low
    inter = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0.0)
    size = detections[:, 2] * detections[:, 3]
    whole = np.where(crowd, size, size + objects[:, 2] * objects[:, 3] - inter)
    return np.divide(inter, whole, out=np.zeros_like(inter), where=inter > 0)


def _ranks(image: Ints, label: Ints, num_images: int) -> Ints:
    """Return for each row the number of earlier rows of its image and class."""
    group = label * num_images + image
    order = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    ranks = np.empty(len(group), np.int64)
    ranks[order] = np.arange(len(group)) - np.repeat(starts, counts)
    return ranks


def _match(matches: DetectionMatches, counted: Bools) -> Ints:
    """Match in rounds the next detection of every image and class, which share no object."""
    pairs = matches.pairs
    partner = np.full((len(THRESHOLDS), len(matches.detections.score)), -1, np.int64)
    if not len(pairs.detection):
        return partner
    free = np.ones((len(THRESHOLDS), len(matches.objects.label)), bool)
    above = pairs.iou >= THRESHOLDS[:, None]
    # The larger the better: objects that count before those that do not, and then by IoU, as the pairs of a detection lie.
    priority = np.arange(len(pairs.iou)) + 1 + len(pairs.iou) * counted[pairs.object]
    first = np.flatnonzero(np.r_[True, pairs.detection[1:] != pairs.detection[:-1]])
    overlapping = pairs.detection[first]
    turn = _ranks(matches.detections.image[overlapping], matches.detections.label[overlapping], matches.num_images)
    sizes = np.diff(np.r_[first, len(pairs.detection)])
    by_turn = np.argsort(turn, kind="stable")
    for group in np.split(by_turn, np.flatnonzero(np.diff(turn[by_turn])) + 1):
        rows = np.repeat(first[group], sizes[group]) + _counting(sizes[group])
        others = pairs.object[rows]
        available = above[:, rows] & (free[:, others] | matches.objects.crowd[others])
        best = np.maximum.reduceat(np.where(available, priority[rows], 0), _starts(sizes[group]), axis=1)
        threshold, index = np.nonzero(best)
        matched = pairs.object[(best[threshold, index] - 1) % len(pairs.iou)]
        partner[threshold, overlapping[group][index]] = matched
        free[threshold, matched] = False
    return partner


def _starts(sizes: Ints) -> Ints:
    return np.cumsum(sizes) - sizes


def _counting(sizes: Ints) -> Ints:
    """Return 0, 1, ... for each size, one after another."""
    return np.arange(sizes.sum()) - np.repeat(_starts(sizes), sizes)
