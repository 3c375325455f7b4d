"""Boxes of annotations that state another size than the file has, brought onto the image as it is: or refused.

Three things happen to images after they are annotated: they are resized, stretched to another shape, or turned upright by a
program that, unlike the one that wrote the annotations, heeds EXIF. Which it was shows in the sizes, and in boxes that have
room in one of the two frames alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from detr_ft.data.images import FileSize

Box = tuple[float, float, float, float]  # xywh, pixels
Size = tuple[int, int]  # width, height
Frame = Literal["stated", "file"]

TURNED, SCALED, SIZE_ALONE = "turned upright", "scaled to the true size", "size as the file has it"
_SAME, _SHOWN, _SWAPPED, _STRETCHED = "same", "as shown", "swapped", "stretched"
_FRAMES: tuple[Frame, Frame] = ("stated", "file")
# On which frame the boxes of a group are where they don't tell: None where the one is as likely as the other.
_USUAL: dict[str, Frame | None] = {
    _SAME: "file", _SHOWN: "file", TURNED: "stated", SCALED: "stated", _SWAPPED: None, _STRETCHED: None,
}  # fmt: skip
_MAY_BE_SAID = (TURNED, SCALED, _STRETCHED)  # groups in which boxes may be on either

_BEYOND = 0.05  # of a side: so far a careless box may leave its image without telling anything of its frame
_MUCH, _LOOSELY = 0.05, 0.02  # a size that is another by 5 % was changed on purpose, its shape by 2 % hardly
_TELLING = 0.1  # share of a group's images whose boxes must tell of a frame, for it to count


def moved_area(area: float, before: Box, after: Box) -> float:
    """The area, changed as that of the box is; where the one before says nothing, the box's own."""
    was, now = before[2] * before[3], after[2] * after[3]
    return area * now / was if was > 0 and area > 0 else now


def _as_it_is(box: Box) -> Box:
    return box


@dataclass(frozen=True)
class Rescaling:
    """What the boxes of an image need to fit its file, upright: `move` takes xywh pixels, `how` says it in words.

    `how` is empty where all is as stated.
    """

    how: str = ""
    move: Callable[[Box], Box] = _as_it_is


AS_STATED = Rescaling()


class AnnotatedImage(NamedTuple):
    """An image as its annotations have it, `stated` and `boxes` (xywh pixels), and the size of its file."""

    stated: Size
    boxes: Sequence[Box]
    file: FileSize


def annotated_images(
    stated: Iterable[Size], boxes: Iterable[Iterable[Sequence[float]]], files: Iterable[FileSize]
) -> list[AnnotatedImage]:
    """The images of a split, from its columns."""
    return [
        AnnotatedImage(size, [as_box(values) for values in own], file)
        for size, own, file in zip(stated, boxes, files, strict=True)
    ]


def as_box(values: Sequence[float]) -> Box:
    """A box as a row holds it, as a tuple."""
    x, y, w, h = values
    return x, y, w, h


@dataclass(frozen=True)
class AnnotatedSizes:
    """On which frame the boxes of a data set's images were drawn, for each group of images alike; None where it is unclear.

    `mirrored` says it of images that are mirrored or upside down, whose size tells nothing.
    """

    of_groups: Mapping[str, Frame | None]
    mirrored: Frame | None

    @classmethod
    def infer(cls, images: Iterable[AnnotatedImage], drawn_on: Frame | None = None) -> AnnotatedSizes:
        """As all boxes of a group tell; where the sizes differ and boxes don't tell, `drawn_on` says on which they were drawn.

        One tool made a data set: all of its splits belong into one call.
        """
        groups: dict[str, list[AnnotatedImage]] = {}
        for one in images:
            groups.setdefault(_group(one), []).append(one)
        frames = {
            name: _frame(name, group) or (drawn_on if name in _MAY_BE_SAID else None) for name, group in groups.items()
        }
        turned = {frames[name] for name in (TURNED, _SHOWN) if name in frames}
        # Images whose size says nothing of their turning go with those whose does, and are unclear where those differ.
        return cls(frames, "file" if not turned else turned.pop() if len(turned) == 1 else None)

    @property
    def show_turning(self) -> bool:
        """Whether there are images with boxes whose sizes tell of their turning: those that are mirrored go with them."""
        return TURNED in self.of_groups or _SHOWN in self.of_groups

    def fit(self, one: AnnotatedImage) -> Rescaling | None:
        """What the boxes of an image need; None where it can't be known, and nothing may be trained on it.

        An image whose own boxes have room in the other frame alone is unclear all the same, and one of a group that wasn't
        there to be judged is judged alone. One without boxes, or of no stated size, needs no more than its size.
        """
        group = _group(one)
        frame = self.of_groups[group] if group in self.of_groups else _frame(group, [one])
        return _fit(one, group, frame, self.mirrored)


def unclear_reason(one: AnnotatedImage) -> str:
    """Why it can't be known what the boxes of an image need, as the end of a sentence that begins with its name."""
    width, height = one.file.upright
    if one.stated == one.file.upright:
        return (
            f"EXIF turns or mirrors it to {width}x{height}, and whether its boxes were drawn before that can't be told"
        )
    upright = " upright" if one.file.orientation > 1 else ""
    stated = "{}x{}".format(*one.stated)
    return f"stated {stated}, is {width}x{height}{upright}: for which of the two its boxes were drawn can't be told"


def _group(one: AnnotatedImage) -> str:
    stated, upright, stored = one.stated, one.file.upright, one.file.stored
    if min(stated + upright) <= 0 or not one.boxes:
        return _SAME
    if stated == upright:
        return _SAME if upright == stored else _SHOWN
    if one.file.orientation >= 5 and (
        stated == stored or (_same_shape(stated, stored) and not _same_shape(stated, upright))
    ):
        return TURNED
    if _same_shape(stated, upright):
        return SCALED
    return _SWAPPED if _same_shape(stated[::-1], upright) else _STRETCHED


def _frame(name: str, group: Sequence[AnnotatedImage]) -> Frame | None:
    """The frame that the boxes of a group were drawn on: as those tell that have room in one alone, or as is usual.

    Of an image of another shape nothing tells that it was stretched: it may have been cropped, or turned without a trace.
    """
    if name == _SAME:
        return "file"
    if name == TURNED:  # what was resized besides has boxes of neither frame's size
        group = [one for one in group if one.stated == one.file.stored] or group
    told = [_tells(one.boxes, one.file.stored if name == _SHOWN else one.stated, one.file.upright) for one in group]
    strong: list[Frame] = [frame for frame in _FRAMES if told.count(frame) >= _TELLING * len(group)]
    if not strong:
        return _USUAL[name]
    believed = len(strong) == 1 and (strong[0] == "file" or _USUAL[name] is not None)
    return strong[0] if believed else None


def _fit(one: AnnotatedImage, kind: str, frame: Frame | None, mirrored: Frame | None) -> Rescaling | None:
    file = one.file
    sizes = AS_STATED if one.stated == file.upright else Rescaling(SIZE_ALONE)
    if not one.boxes or min(one.stated + file.upright) <= 0:
        return sizes
    if kind in (_SAME, SCALED) and frame == _USUAL[kind] and file.orientation > 1 and file.upright == file.stored:
        if mirrored is None:
            return None
        if mirrored == "stated":
            return _turning(one)
    if kind == TURNED and frame == "file" and one.stated != file.stored:
        return Rescaling(SCALED, _scaling(one.stated[::-1], file.upright))
    if frame is None or (kind in _MAY_BE_SAID and _tells(one.boxes, one.stated, file.upright) not in (None, frame)):
        return None
    if frame == "file":
        return sizes
    return _turning(one) if kind in (TURNED, _SHOWN) else Rescaling(SCALED, _scaling(one.stated, file.upright))


def _turning(one: AnnotatedImage) -> Rescaling:
    """From the image as stored, perhaps at another size."""
    file = one.file
    scale = _scaling(file.stored if _group(one) == _SHOWN else one.stated, file.stored)
    return Rescaling(TURNED, lambda box: _turned(scale(box), file.orientation, file.stored))


def _tells(boxes: Sequence[Box], drawn: Size, upright: Size) -> Frame | None:
    """The frame that alone has room for all boxes."""
    on_drawn, on_file = _room(boxes, drawn), _room(boxes, upright)
    return None if on_drawn == on_file else "stated" if on_drawn else "file"


def _room(boxes: Sequence[Box], size: Size) -> bool:
    """Whether all boxes lie within an image of that size, or nearly; broken ones tell nothing."""
    width, height = (side * (1 + _BEYOND) for side in size)
    return all(x + w <= width and y + h <= height for x, y, w, h in boxes if math.isfinite(x + y + w + h))


def _same_shape(one: Size, other: Size) -> bool:
    """Whether one is the other enlarged or reduced: with sides rounded to whole pixels, or by much, and then more loosely."""
    if abs(other[0] * one[1] - other[1] * one[0]) <= max(sum(one), sum(other)):
        return True
    across, down = other[0] / one[0], other[1] / one[1]
    return abs(math.log(across)) > _MUCH and abs(across / down - 1) < _LOOSELY


def _scaling(before: Size, after: Size) -> Callable[[Box], Box]:
    across, down = after[0] / before[0], after[1] / before[1]
    return lambda box: (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def _turned(box: Box, orientation: int, stored: Size) -> Box:
    """A box on the image as stored, moved as EXIF's orientation 2 to 8 moves the image."""
    x, y, w, h = box
    across, down = stored[0] - x - w, stored[1] - y - h  # from the right and from the bottom
    left, top = {
        2: (across, y), 3: (across, down), 4: (x, down), 5: (y, x), 6: (down, x), 7: (down, across), 8: (y, across),
    }[orientation]  # fmt: skip
    return (left, top, h, w) if orientation >= 5 else (left, top, w, h)
