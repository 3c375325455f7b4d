"""Every detection of a set marked right, wrong or not counted, by COCO's rules: what all figures are counted from.

Tables of numbers, not one record an object: two thousand images of a hundred detections take a few tens of megabytes.
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
MOST = 100  # detections that count, of each class in each image
_CHUNK = 2_000_000  # pairs of boxes looked at together


@dataclass(frozen=True, eq=False)
class GroundTruthArrays:
    """The truth: `image [P]` (0 to I-1), `label [P]`, `box [P, 4]` xywh in pixels, `area [P]`, `crowd [P]`."""

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
        """Those at the rows."""
        return DetectionArrays(self.image[rows], self.label[rows], self.box[rows], self.score[rows])


@dataclass(frozen=True, eq=False)
class Pairs:
    """Boxes of one image that meet: `found [N]`, `object [N]`, `iou [N]`, those of one detection side by side."""

    found: Ints
    object: Ints
    iou: Floats


@dataclass(frozen=True, eq=False)
class DetectionMatches:
    """A marked set: classes in the order of their indices, each class's detections best first.

    `place [D]` counts the better detections of the same class in the same image. `partner [T, D]` is the object that a
    detection takes at each of the ten thresholds, or -1, by one of the four areas of `AREAS`.
    """

    names: Sequence[str]
    num_images: int
    objects: GroundTruthArrays
    found: DetectionArrays
    place: Ints
    pairs: Pairs

    def counted(self, area: str) -> Bools:
        """`[P]`: the objects that are to be found, which crowds and those of other sizes are not."""
        low, high = AREAS[area]
        return ~self.objects.crowd & (self.objects.area >= low) & (self.objects.area <= high)

    def partner(self, area: str) -> Ints:
        """`[T, D]`: the object that each detection takes, at each threshold, or -1."""
        return _take_partners(self, self.counted(area))

    def marked(self, area: str) -> tuple[Bools, Bools]:
        """`[T, D]` twice: is the detection right; does it count, which one that took a crowd or another size does not."""
        counted, partner = self.counted(area), self.partner(area)
        low, high = AREAS[area]
        size = self.found.box[:, 2] * self.found.box[:, 3]
        inside = (size >= low) & (size <= high)
        took = partner >= 0
        of_interest = np.append(counted, False)[partner]  # -1 takes the last
        return took & of_interest, np.where(took, of_interest, inside)

    @cached_property
    def of_class(self) -> list[slice]:
        """Where the detections of each class lie."""
        edges = np.searchsorted(self.found.label, np.arange(len(self.names) + 1))
        return [slice(int(low), int(high)) for low, high in pairwise(edges)]


def mark(names: Sequence[str], num_images: int, objects: GroundTruthArrays, found: DetectionArrays) -> DetectionMatches:
    """Mark the best hundred detections of each class in each image against the objects of that class there.

    Detections are taken best first, equal ones in the order of their images; each takes the free object with the
    largest IoU, one that counts rather than one that does not. The protocol of Lin et al., Microsoft COCO (2014), as
    pycocotools has it.
    """
    order = np.lexsort((np.arange(len(found.score)), found.image, -found.score, found.label))
    found = found.take(order)
    place = _places(found.image, found.label, num_images)
    kept = place < MOST
    found, place = found.take(kept), place[kept]
    return DetectionMatches(names, num_images, objects, found, place, meeting(found, objects, THRESHOLDS[0]))


def meeting(found: DetectionArrays, objects: GroundTruthArrays, least: float, same_class: bool = True) -> Pairs:
    """The pairs of a detection and an object of its image, and of its class if so wanted, with an IoU of `least` or more.

    Those of a detection come by IoU, equal ones by the object's row, the last being the one that it would take first.
    """
    several = max(objects.label.max(initial=0), found.label.max(initial=0)) + 1 if same_class else 0
    there = objects.image * several + objects.label if same_class else objects.image
    here = found.image * several + found.label if same_class else found.image
    by_group = np.argsort(there, kind="stable")
    first = np.searchsorted(there[by_group], here, side="left")
    count = np.searchsorted(there[by_group], here, side="right") - first
    parts = []
    total = np.cumsum(count)
    low = 0
    while low < len(here):
        before = total[low - 1] if low else 0
        high = max(low + 1, int(np.searchsorted(total, before + _CHUNK, side="right")))
        rows = np.repeat(np.arange(low, high), count[low:high])
        inside = np.arange(len(rows)) - np.repeat(total[low:high] - count[low:high] - before, count[low:high])
        others = by_group[first[rows] + inside]
        iou = box_iou(found.box[rows], objects.box[others], objects.crowd[others])
        near = iou >= least
        parts.append((rows[near], others[near], iou[near]))
        low = high
    if not parts:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    rows, others, iou = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((others, iou, rows))
    return Pairs(rows[order], others[order], iou[order])


def box_iou(found: Floats, objects: Floats, crowd: Bools) -> Floats:
    """`[N]`: the IoU of boxes xywh, row by row; against a crowd, the part of the detection that lies in it."""
    low = np.maximum(found[:, :2], objects[:, :2])
    high = np.minimum(found[:, :2] + found[:, 2:], objects[:, :2] + objects[:, 2:])
    sides = high - low
    inter = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], 0.0)
    size = found[:, 2] * found[:, 3]
    whole = np.where(crowd, size, size + objects[:, 2] * objects[:, 3] - inter)
    return np.divide(inter, whole, out=np.zeros_like(inter), where=inter > 0)


def _places(image: Ints, label: Ints, num_images: int) -> Ints:
    """How many rows before each are of its image and class."""
    group = label * num_images + image
    order = np.argsort(group, kind="stable")
    _, starts, counts = np.unique(group[order], return_index=True, return_counts=True)
    places = np.empty(len(group), np.int64)
    places[order] = np.arange(len(group)) - np.repeat(starts, counts)
    return places


def _take_partners(marks: DetectionMatches, counted: Bools) -> Ints:
    """Round after round, the next detection of every image and class takes its object: those of a round share none."""
    pairs = marks.pairs
    partner = np.full((len(THRESHOLDS), len(marks.found.score)), -1, np.int64)
    if not len(pairs.found):
        return partner
    free = np.ones((len(THRESHOLDS), len(marks.objects.label)), bool)
    reached = pairs.iou >= THRESHOLDS[:, None]
    # The larger the better: what counts before what does not, and then by IoU, as the pairs of a detection lie.
    worth = np.arange(len(pairs.iou)) + 1 + len(pairs.iou) * counted[pairs.object]
    first = np.flatnonzero(np.r_[True, pairs.found[1:] != pairs.found[:-1]])
    meets = pairs.found[first]
    turn = _places(marks.found.image[meets], marks.found.label[meets], marks.num_images)
    sizes = np.diff(np.r_[first, len(pairs.found)])
    by_turn = np.argsort(turn, kind="stable")
    for one in np.split(by_turn, np.flatnonzero(np.diff(turn[by_turn])) + 1):
        rows = np.repeat(first[one], sizes[one]) + _counting(sizes[one])
        others = pairs.object[rows]
        open_to_it = reached[:, rows] & (free[:, others] | marks.objects.crowd[others])
        best = np.maximum.reduceat(np.where(open_to_it, worth[rows], 0), _starts(sizes[one]), axis=1)
        threshold, which = np.nonzero(best)
        taken = pairs.object[(best[threshold, which] - 1) % len(pairs.iou)]
        partner[threshold, meets[one][which]] = taken
        free[threshold, taken] = False
    return partner


def _starts(sizes: Ints) -> Ints:
    return np.cumsum(sizes) - sizes


def _counting(sizes: Ints) -> Ints:
    """0, 1, ... for each size, one after another."""
    return np.arange(sizes.sum()) - np.repeat(_starts(sizes), sizes)
