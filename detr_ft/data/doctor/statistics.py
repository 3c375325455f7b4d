"""The boxes of a split as columns, and statistics of them; no image is opened."""

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

# A box may extend beyond its image by this: rounding to whole pixels can cause it.
SLACK_PX = 0.5

_MAX_MAGNITUDE = 1e100


@dataclass(frozen=True)
class BoxColumns:
    """The N boxes of a split as columns; `xywh [N, 4]` is in pixels.

    `row` in the split and `position` in the row count from 0; `id` is the annotation's; `label` is the class; `size [N, 2]`
    is the stated width and height of the image.
    """

    row: Ints
    position: Ints
    id: Ints
    xywh: Floats
    label: Ints
    size: Floats
    crowd: Mask

    def by_row(self, rows: int) -> list[list[list[float]]]:
        """Return the boxes, xywh, of each row; `rows` is their number."""
        ends = np.cumsum(np.bincount(self.row, minlength=rows))
        return [part.tolist() for part in np.split(self.xywh, ends[:-1])] if rows else []

    @property
    def finite(self) -> Mask:
        """The mask of boxes with finite numbers, small enough that computing with them stays finite."""
        return np.asarray((np.abs(self.xywh) <= _MAX_MAGNITUDE).all(1))  # false for NaN

    @property
    def valid(self) -> Mask:
        """The mask of boxes that are finite, have an area, and whose image has a size."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.finite & (self.xywh[:, 2:] > 0).all(1) & (self.size > 0).all(1))


def boxes_of(rows: Dataset) -> BoxColumns:
    """Return the boxes of a split; its images are not read."""
    objects = rows["objects"][:]
    counts = np.array([len(row["bbox"]) for row in objects], dtype=np.int64)
    total = int(counts.sum())
    ends = np.repeat(np.cumsum(counts), counts)
    sizes = np.stack([np.asarray(rows["width"][:], float), np.asarray(rows["height"][:], float)], axis=1)
    return BoxColumns(
        row=np.repeat(np.arange(len(counts)), counts),
        position=np.arange(total) - (ends - np.repeat(counts, counts)),
        id=_column(objects, "id", total),
        xywh=np.array([box for row in objects for box in row["bbox"]], dtype=np.float64).reshape(total, 4),
        label=_column(objects, "category", total),
        size=np.repeat(sizes, counts, axis=0),
        crowd=_column(objects, "iscrowd", total).astype(bool),
    )


def _column(objects: list[dict[str, list[int]]], key: str, total: int) -> Ints:
    return np.fromiter(chain.from_iterable(row[key] for row in objects), dtype=np.int64, count=total)


def other_format(boxes: BoxColumns) -> BoxFormat | None:
    """Return the format of boxes that are not x, y, width, height in pixels as stated, or None."""
    return contradicting_format(boxes.xywh[boxes.valid], boxes.size[boxes.valid])


def converted(boxes: BoxColumns, format: BoxFormat | None) -> BoxColumns:
    """Return the boxes as x, y, width, height in pixels, from `format`; None means they are already."""
    return boxes if format is None else replace(boxes, xywh=format.to_xywh(boxes.xywh, boxes.size))


# COCO's limits: objects under 32² pixels are small, over 96² large.
_SMALL_AREA, _LARGE_AREA = 32.0**2, 96.0**2
_MIN_HEIGHT_PX = 1e-9  # the aspect ratio of thinner boxes would be infinite


@dataclass(frozen=True)
class SplitSummary:
    """Numbers of images, boxes, images without objects, and boxes of each class in a split."""

    images: int
    boxes: int
    images_without_objects: int
    boxes_per_class: dict[str, int]


@dataclass(frozen=True)
class Spread:
    """Minimum, 10th percentile, median, 90th percentile and maximum; all 0 without values."""

    least: float = 0.0
    tenth: float = 0.0
    median: float = 0.0
    ninetieth: float = 0.0
    most: float = 0.0

    @classmethod
    def of(cls, values: Floats) -> Spread:
        """Return the spread of values, to four significant digits."""
        if not len(values):
            return cls()
        return cls(*(float(f"{value:.4g}") for value in np.quantile(values, [0, 0.1, 0.5, 0.9, 1])))


@dataclass(frozen=True)
class SplitStatistics:
    """Statistics of a split, of valid boxes; `boxes_per_class` and `images_per_class` count all boxes.

    `small`, `medium` and `large` count boxes by COCO's limits, 32² and 96² pixels. `longest_side` is an image's, in pixels;
    `shorter_side` a box's, in pixels, and `shorter_share` the same as a fraction of the longest side of its image;
    `aspect` a box's width over its height; `objects` the number in an image, without crowds.
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
    """Return the numbers of images and boxes of a split."""
    names, counts = class_names(rows), Counter(boxes.label.tolist())
    per_class = {name: counts[index] for index, name in enumerate(names)}
    return SplitSummary(len(rows), len(boxes.row), len(rows) - len(np.unique(boxes.row)), per_class)


def statistics_of(rows: Dataset) -> SplitStatistics:
    """Return the statistics of a split in the schema, of its boxes in their detected format."""
    boxes = boxes_of(rows)
    sizes = np.stack([np.asarray(rows["width"][:], float), np.asarray(rows["height"][:], float)], axis=1)
    return split_statistics(converted(boxes, other_format(boxes)), sizes, class_names(rows))


def split_statistics(boxes: BoxColumns, sizes: Floats, names: Sequence[str]) -> SplitStatistics:
    """Return the statistics of boxes in images of `sizes [images, 2]`."""
    valid = boxes.valid
    width, height = boxes.xywh[valid].T[2:]
    area, shorter = width * height, np.minimum(width, height)
    in_range = (boxes.label >= 0) & (boxes.label < len(names))
    per_class = np.bincount(boxes.label[in_range], minlength=len(names))
    labels_per_image = np.unique(np.stack([boxes.label[in_range], boxes.row[in_range]]), axis=1)[0]
    images_per_class = np.bincount(labels_per_image, minlength=len(names))
    counts = np.bincount(boxes.row[valid & ~boxes.crowd], minlength=len(sizes))
    small, large = int((area < _SMALL_AREA).sum()), int((area > _LARGE_AREA).sum())
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
        aspect=Spread.of(width / np.maximum(height, _MIN_HEIGHT_PX)),
        objects=Spread.of(counts.astype(float)),
    )
