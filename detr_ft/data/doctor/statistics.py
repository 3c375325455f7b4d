"""Figures of a split, from what is stated: no image is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from detr_ft.data.doctor.box_columns import Boxes, Floats, boxes_of, converted, other_format
from detr_ft.data.schema import class_names

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
class Figures:
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


def summarise(rows: Dataset, boxes: Boxes) -> SplitSummary:
    """The numbers of a split."""
    names, counts = class_names(rows), Counter(boxes.label.tolist())
    per_class = {name: counts[index] for index, name in enumerate(names)}
    return SplitSummary(len(rows), len(boxes.row), len(rows) - len(np.unique(boxes.row)), per_class)


def figures_of(rows: Dataset) -> Figures:
    """The figures of a split in the schema, of its boxes in the format that they are likely in."""
    boxes = boxes_of(rows)
    sizes = np.stack([np.asarray(rows["width"][:], float), np.asarray(rows["height"][:], float)], axis=1)
    return figures(converted(boxes, other_format(boxes)), sizes, class_names(rows))


def figures(boxes: Boxes, sizes: Floats, names: Sequence[str]) -> Figures:
    """The figures of boxes in images of `sizes [images, 2]`."""
    sound = boxes.sound
    width, height = boxes.xywh[sound].T[2:]
    area, shorter = width * height, np.minimum(width, height)
    known = (boxes.label >= 0) & (boxes.label < len(names))
    per_class = np.bincount(boxes.label[known], minlength=len(names))
    holding = np.unique(np.stack([boxes.label[known], boxes.row[known]]), axis=1)[0]
    images_per_class = np.bincount(holding, minlength=len(names))
    counts = np.bincount(boxes.row[sound & ~boxes.crowd], minlength=len(sizes))
    small, large = int((area < _SMALL).sum()), int((area > _LARGE).sum())
    return Figures(
        images=len(sizes),
        boxes=int(sound.sum()),
        boxes_per_class=dict(zip(names, per_class.tolist(), strict=True)),
        images_per_class=dict(zip(names, images_per_class.tolist(), strict=True)),
        small=small,
        medium=len(area) - small - large,
        large=large,
        longest_side=Spread.of(sizes.max(1)[sizes.min(1) > 0]),
        shorter_side=Spread.of(shorter),
        shorter_share=Spread.of(shorter / boxes.size[sound].max(1)),
        aspect=Spread.of(width / np.maximum(height, _THINNEST)),
        objects=Spread.of(counts.astype(float)),
    )
