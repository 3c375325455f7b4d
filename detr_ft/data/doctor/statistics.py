"""Figures of a split, from what is stated: no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from detr_ft.data.box_format import BoxFormat, contradicting_format
from detr_ft.data.schema import class_names

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

# A box may leave its image by this many pixels: what rounding to whole pixels can do.
SLACK_PX = 0.5

_LARGEST = 1e100


@dataclass(frozen=True)
class BoxColumns:
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
    def valid(self) -> Mask:
        """Those that are finite, have an area, and whose image has a size."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.finite & (self.xywh[:, 2:] > 0).all(1) & (self.size > 0).all(1))


def boxes_of(rows: Dataset) -> BoxColumns:
    """The boxes of a split; its images aren't touched."""
    objects = rows["objects"][:]
    counts = np.array([len(one["bbox"]) for one in objects], dtype=np.int64)
    many = int(counts.sum())
    ends = np.repeat(np.cumsum(counts), counts)
    sizes = np.stack([np.asarray(rows["width"][:], float), np.asarray(rows["height"][:], float)], axis=1)
    return BoxColumns(
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


def other_format(boxes: BoxColumns) -> BoxFormat | None:
    """The format that the boxes of a split are in, where that isn't x, y, width, height in pixels; None where it is."""
    return contradicting_format(boxes.xywh[boxes.valid], boxes.size[boxes.valid])


def converted(boxes: BoxColumns, format: BoxFormat | None) -> BoxColumns:
    """The same boxes as x, y, width, height in pixels; None: they are so already."""
    return boxes if format is None else replace(boxes, xywh=format.to_xywh(boxes.xywh, boxes.size))


# COCO's limits: objects under 32² pixels are small, over 96² large.
_SMALL, _LARGE = 32.0**2, 96.0**2
_THINNEST = 1e-9  # pixels: the aspect of what is thinner would be infinite


@dataclass(frozen=True)
class SplitSummary:
    """What a split holds: numbers of images, boxes, images without objects, and boxes of each class."""

    images: int
    boxes: int
    images_without_objects: int
    boxes_per_class: dict[str, int]


@dataclass(frozen=True)
class Spread:
    """How values lie: the least, a tenth, the median, nine tenths, the most. All 0 where there are none."""

    least: float = 0.0
    tenth: float = 0.0
    median: float = 0.0
    ninetieth: float = 0.0
    most: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> Spread:
        """The spread of some values, to four significant digits."""
        if not len(values):
            return cls()
        return cls(*(float(f"{value:.4g}") for value in np.quantile(values, [0, 0.1, 0.5, 0.9, 1])))


@dataclass(frozen=True)
class SplitStatistics:
    """Figures of a split. Boxes that aren't finite or have no area are left out, but for those of each class.

    `small`, `medium` and `large` count boxes by COCO's limits, 32² and 96² pixels. `longest_side` is an image's, in pixels;
    `shorter_side` a box's, in pixels, and `shorter_share` the same as a fraction of the longest side of its image;
    `aspect` a box's width over its height; `objects` those of an image, crowds aside.
    """

    images: int
    boxes: int
    boxes_per_class: dict[str, int]
    images_per_class: dict[str, int]
    small: int
    medium: int
    large: int
    longest_side: Spread
    shorter_side: Spread
    shorter_share: Spread
    aspect: Spread
    objects: Spread


def summarize(rows: Dataset, boxes: BoxColumns) -> SplitSummary:
    """The numbers of a split."""
    names, counts = class_names(rows), Counter(boxes.label.tolist())
    per_class = {name: counts[index] for index, name in enumerate(names)}
    return SplitSummary(len(rows), len(boxes.row), len(rows) - len(np.unique(boxes.row)), per_class)


def statistics_of(rows: Dataset) -> SplitStatistics:
    """The figures of a split in the schema, of its boxes in the format that they are likely in."""
    boxes = boxes_of(rows)
    sizes = np.stack([np.asarray(rows["width"][:], float), np.asarray(rows["height"][:], float)], axis=1)
    return split_statistics(converted(boxes, other_format(boxes)), sizes, class_names(rows))


def split_statistics(boxes: BoxColumns, sizes: Floats, names: Sequence[str]) -> SplitStatistics:
    """The figures of boxes in images of `sizes [images, 2]`."""
    valid = boxes.valid
    width, height = boxes.xywh[valid].T[2:]
    area, shorter = width * height, np.minimum(width, height)
    known = (boxes.label >= 0) & (boxes.label < len(names))
    per_class = np.bincount(boxes.label[known], minlength=len(names))
    holding = np.unique(np.stack([boxes.label[known], boxes.row[known]]), axis=1)[0]
    images_per_class = np.bincount(holding, minlength=len(names))
    counts = np.bincount(boxes.row[valid & ~boxes.crowd], minlength=len(sizes))
    small, large = int((area < _SMALL).sum()), int((area > _LARGE).sum())
    return SplitStatistics(
        images=len(sizes),
        boxes=int(valid.sum()),
        boxes_per_class=dict(zip(names, per_class.tolist(), strict=True)),
        images_per_class=dict(zip(names, images_per_class.tolist(), strict=True)),
        small=small,
        medium=len(area) - small - large,
        large=large,
        longest_side=Spread.of(sizes.max(1)[sizes.min(1) > 0]),
        shorter_side=Spread.of(shorter),
        shorter_share=Spread.of(shorter / boxes.size[valid].max(1)),
        aspect=Spread.of(width / np.maximum(height, _THINNEST)),
        objects=Spread.of(counts.astype(float)),
    )
