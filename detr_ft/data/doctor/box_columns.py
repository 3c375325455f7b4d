"""The boxes of a split as columns, and the format that they are likely in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# A box may leave its image by this many pixels: what rounding to whole pixels can do.
SLACK = 0.5

_LARGEST = 1e100

_ENOUGH = 5  # boxes: with fewer nothing is said about the format of all
_MISFITS = 0.05  # share of boxes that leave their image before another format is thought of
_BETTER = 20  # times fewer misfits in another format, for it to be the likely one
_SMALLEST_IMAGE = 16  # pixels: in smaller images fractions can't be told from pixels


@dataclass(frozen=True)
class Boxes:
    """N boxes: `row` of the split and `place` in it, from 0, the annotation's `id`, `xywh [N, 4]` in pixels, class `label`,
    `size [N, 2]`, the image's width and height as stated, and `crowd`.
    """  # fmt: skip

    row: Ints
    place: Ints
    id: Ints
    xywh: Floats
    label: Ints
    size: Floats
    crowd: Mask

    def by_row(self, rows: int) -> list[list[list[float]]]:
        """The boxes, xywh, of each of so many rows."""
        ends = np.cumsum(np.bincount(self.row, minlength=rows))
        return [part.tolist() for part in np.split(self.xywh, ends[:-1])] if rows else []

    @property
    def finite(self) -> Mask:
        """Those whose numbers are all finite, and not so large that reckoning with them would end in Inf."""
        return np.asarray((np.abs(self.xywh) <= _LARGEST).all(1))  # NaN isn't either

    @property
    def sound(self) -> Mask:
        """Those that are finite, have an area, and whose image has a size."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.finite & (self.xywh[:, 2:] > 0).all(1) & (self.size > 0).all(1))


def boxes_of(rows: Dataset) -> Boxes:
    """The boxes of a split; its images aren't touched."""
    objects = rows["objects"][:]
    counts = np.array([len(one["bbox"]) for one in objects], dtype=np.int64)
    many = int(counts.sum())
    ends = np.repeat(np.cumsum(counts), counts)
    sizes = np.stack([np.asarray(rows["width"][:], float), np.asarray(rows["height"][:], float)], axis=1)
    return Boxes(
        row=np.repeat(np.arange(len(counts)), counts),
        place=np.arange(many) - (ends - np.repeat(counts, counts)),
        id=_column(objects, "id", many),
        xywh=np.array([box for one in objects for box in one["bbox"]], dtype=np.float64).reshape(many, 4),
        label=_column(objects, "category", many),
        size=np.repeat(sizes, counts, axis=0),
        crowd=_column(objects, "iscrowd", many).astype(bool),
    )


def _column(objects: list[dict[str, list[int]]], key: str, many: int) -> Ints:
    return np.fromiter(chain.from_iterable(one[key] for one in objects), dtype=np.int64, count=many)


def leaves(xywh: Floats, size: Floats, slack: float = SLACK) -> Mask:
    """Which boxes leave their image, or have no area in it: `[N]`."""
    low, high = xywh[:, :2], xywh[:, :2] + xywh[:, 2:]
    return np.asarray(((low < -slack) | (high > size + slack) | (xywh[:, 2:] <= 0)).any(1))


def _corners(box: Floats, size: Floats) -> Floats:
    return np.concatenate([box[:, :2], box[:, 2:] - box[:, :2]], axis=1)


def _centred(box: Floats, size: Floats) -> Floats:
    return np.concatenate([box[:, :2] - box[:, 2:] / 2, box[:, 2:]], axis=1)


def _fractions(inner: Callable[[Floats, Floats], Floats]) -> Callable[[Floats, Floats], Floats]:
    return lambda box, size: inner(box * np.tile(size, 2), size)


_PIXELS = {
    "two corners (xyxy) in pixels": _corners,
    "centre and size (cxcywh) in pixels": _centred,
}
_FRACTIONS = {
    "centre and size (cxcywh) in fractions of the image": _fractions(_centred),
    "x, y, width, height (xywh) in fractions of the image": _fractions(lambda box, size: box),
    "two corners (xyxy) in fractions of the image": _fractions(_corners),
}


def likely_format(boxes: Boxes) -> str | None:
    """The format that nearly all boxes fit where x, y, width, height in pixels fails for many; None where all is well."""
    some = boxes.sound
    xywh, size = boxes.xywh[some], boxes.size[some]
    if len(xywh) < _ENOUGH:
        return None
    small = (np.abs(xywh) <= 1.001).all(1) & (size >= _SMALLEST_IMAGE).all(1)
    if small.mean() > 1 - _MISFITS:
        return min(_FRACTIONS, key=lambda name: leaves(_FRACTIONS[name](xywh, size), size).mean())
    misfits = leaves(xywh, size)
    if misfits.sum() < _ENOUGH or misfits.mean() < _MISFITS:
        return None
    found = {name: float(leaves(turn(xywh, size), size).mean()) for name, turn in _PIXELS.items()}
    best = min(found, key=lambda name: found[name])
    return best if found[best] <= misfits.mean() / _BETTER else None


def converted(boxes: Boxes, format: str | None) -> Boxes:
    """The same boxes as x, y, width, height in pixels; None: they are so already."""
    if format is None:
        return boxes
    with np.errstate(invalid="ignore", over="ignore"):  # of those that aren't finite
        return replace(boxes, xywh={**_PIXELS, **_FRACTIONS}[format](boxes.xywh, boxes.size))
