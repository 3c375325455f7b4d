"""The boxes of a split as columns, in pixels, whatever format they are written in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from detr_ft.data.box_format import BoxFormat, contradicted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# A box may leave its image by this many pixels: what rounding to whole pixels can do.
SLACK = 0.5

_LARGEST = 1e100


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


def other_format(boxes: Boxes) -> BoxFormat | None:
    """The format that the boxes of a split are in, where that isn't x, y, width, height in pixels; None where it is."""
    return contradicted(boxes.xywh[boxes.sound], boxes.size[boxes.sound])


def converted(boxes: Boxes, format: BoxFormat | None) -> Boxes:
    """The same boxes as x, y, width, height in pixels; None: they are so already."""
    return boxes if format is None else replace(boxes, xywh=format.to_xywh(boxes.xywh, boxes.size))
