"""The boxes of one image, mended: scaled, turned, put in order, clipped, or left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from detr_ft.data.doctor.boxes import SLACK
from detr_ft.data.doctor.look import Look

Box = tuple[float, float, float, float]
Size = tuple[int, int]
Step = tuple[str, Box, Box | None]  # what was done, before, after

_LEAST_SIDE = 1e-3  # pixels: a thinner rest of a box is nothing
_SAME_SHAPE = 0.02  # as training has it: by so much the two sides' factors may differ, and by more the size must


@dataclass
class BoxMender:
    """Mends one image's boxes, one after another; it remembers those that it kept, to leave out their copies.

    `size` is the true one, in pixels, and `move` what the boxes need to fit it, with its name; the steps of a box are in
    `steps`.
    """

    size: Size
    num_classes: int
    move: tuple[str, Callable[[Box], Box]] | None = None
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
        if self.move is not None:
            box = self.move[1](box)
            yield self.move[0], box
        if min(box[2:]) < 0:
            box = _in_order(box)
            yield "corners put in order", box
        if min(box[2:]) == 0:
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


def fitting(one: Look, stated: Size) -> tuple[str, Callable[[Box], Box]] | None:
    """What boxes drawn for the stated size need to fit the image as it is, upright; None where nothing is known to help."""
    if stated == one.size or min(stated) <= 0:
        return None
    if one.turned >= 5 and stated == one.stored:
        return "turned upright", lambda box: _turned(box, one.turned, stated)
    across, down = one.size[0] / stated[0], one.size[1] / stated[1]
    if abs(across - down) < _SAME_SHAPE * max(across, down) and abs(across - 1) > _SAME_SHAPE:
        return "scaled to the true size", lambda box: (
            box[0] * across, box[1] * down, box[2] * across, box[3] * down,
        )  # fmt: skip
    return None


def _turned(box: Box, orientation: int, stored: Size) -> Box:
    """A box on the image as stored, moved as EXIF's orientation 5 to 8 moves the image."""
    x, y, w, h = box
    across, down = stored[0] - x - w, stored[1] - y - h  # from the right and from the bottom
    left, top = {5: (y, x), 6: (down, x), 7: (down, across), 8: (y, across)}[orientation]
    return left, top, h, w


def _in_order(box: Box) -> Box:
    x, y, w, h = box
    return min(x, x + w), min(y, y + h), abs(w), abs(h)


def _leaves(box: Box, size: Size) -> bool:
    x, y, w, h = box
    return min(x, y) < -SLACK or x + w > size[0] + SLACK or y + h > size[1] + SLACK


def _clipped(box: Box, size: Size) -> Box | None:
    left, top = max(box[0], 0.0), max(box[1], 0.0)
    width, height = min(box[0] + box[2], size[0]) - left, min(box[1] + box[3], size[1]) - top
    return (left, top, width, height) if min(width, height) > _LEAST_SIDE else None
