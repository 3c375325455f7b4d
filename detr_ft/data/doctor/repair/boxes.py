"""The boxes of one image, mended: scaled, turned, put in order, clipped, or left out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from detr_ft.data.box_frame import LEAST_SIDE
from detr_ft.data.doctor.box_columns import SLACK
from detr_ft.data.integrity.annotated_size import AS_STATED, Box, Rescaling, Size

Step = tuple[str, Box, Box | None]  # what was done, before, after


@dataclass
class BoxMender:
    """Mends one image's boxes, one after another; it remembers those that it kept, to leave out their copies.

    `size` is the true one, in pixels, and `fit` what the boxes need to fit it; the steps of a box are in `steps`.
    """

    size: Size
    num_classes: int
    fit: Rescaling = AS_STATED
    steps: list[Step] = field(default_factory=list)
    _kept: set[tuple[Box, int]] = field(default_factory=set)

    def mend(self, box: Box, label: int) -> Box | None:
        """The box as it should be, or None where nothing of it can be kept; fills `steps`."""
        self.steps = []
        for what, after in self._mends(box, label):
            self.steps.append((what, box, after))
            if after is None:
                return None
            box = after
        self._kept.add((box, label))
        return box

    def _mends(self, box: Box, label: int) -> Iterator[tuple[str, Box | None]]:
        if not 0 <= label < self.num_classes:
            yield "left out: unknown class", None
        if not all(map(math.isfinite, box)):
            yield "left out: not finite", None
        moved = self.fit.move(box)
        if moved != box:
            box = moved
            yield self.fit.how, box
        if min(box[2:]) < 0:
            box = _in_order(box)
            yield "corners put in order", box
        if min(box[2:]) <= LEAST_SIDE:
            yield "left out: zero size", None
        if _leaves(box, self.size):
            clipped = _clipped(box, self.size)
            if clipped is None:
                yield "left out: outside", None
            else:
                box = clipped
                yield "clipped to the image", box
        if (box, label) in self._kept:
            yield "left out: duplicate box", None


def _in_order(box: Box) -> Box:
    x, y, w, h = box
    return min(x, x + w), min(y, y + h), abs(w), abs(h)


def _leaves(box: Box, size: Size) -> bool:
    x, y, w, h = box
    return min(x, y) < -SLACK or x + w > size[0] + SLACK or y + h > size[1] + SLACK


def _clipped(box: Box, size: Size) -> Box | None:
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    width, height = min(box[0] + box[2], size[0]) - left, min(box[1] + box[3], size[1]) - top
    return (left, top, width, height) if min(width, height) > LEAST_SIDE else None
