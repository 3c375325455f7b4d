"""Adapt boxes whose annotations state another size than their image file, or refuse them.

Three things happen to images after annotation: they are resized, stretched to another shape, or turned upright by a
program that applies EXIF, unlike the annotation tool. The sizes show which it was, together with boxes that fit in only
one of the two frames.
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
# The frame of a group whose boxes fit in both: None if either is as likely.
_DEFAULT_FRAME: dict[str, Frame | None] = {
    _SAME: "file", _SHOWN: "file", TURNED: "stated", SCALED: "stated", _SWAPPED: None, _STRETCHED: None,
}  # fmt: skip
_AMBIGUOUS_GROUPS = (TURNED, SCALED, _STRETCHED)  # boxes may be in either frame

_MAX_OVERHANG = 0.05  # of a side: an inaccurate box may leave its image by this much, in either frame
_MIN_LOG_RESIZE, _MAX_ASPECT_CHANGE = 0.05, 0.02  # an image resized by 5 % was resized on purpose, and keeps its shape
_MIN_DECISIVE_FRACTION = 0.1  # of the images of a group, with boxes that fit in one frame only, to decide for all


def moved_area(area: float, before: Box, after: Box) -> float:
    """Return the area, scaled as the box is; the area of the box if the one before is unknown."""
    box_area_before, box_area = before[2] * before[3], after[2] * after[3]
    return area * box_area / box_area_before if box_area_before > 0 and area > 0 else box_area


def _unchanged(box: Box) -> Box:
    return box


@dataclass(frozen=True)
class Rescaling:
    """The change that fits the boxes of an image to its upright file.

    `move` maps xywh in pixels; `how` describes it, and is empty if size and boxes are as stated.
    """

    how: str = ""
    move: Callable[[Box], Box] = _unchanged


AS_STATED = Rescaling()


class AnnotatedImage(NamedTuple):
    """An image in its annotations, `stated` and `boxes` (xywh in pixels), and the size of its file."""

    stated: Size
    boxes: Sequence[Box]
    file: FileSize


def annotated_images(
    stated: Iterable[Size], boxes: Iterable[Iterable[Sequence[float]]], files: Iterable[FileSize]
) -> list[AnnotatedImage]:
    """Return the images of a split, from its columns."""
    return [
        AnnotatedImage(size, [as_box(values) for values in own], file)
        for size, own, file in zip(stated, boxes, files, strict=True)
    ]


def as_box(values: Sequence[float]) -> Box:
    """Return a row's box as a tuple."""
    x, y, w, h = values
    return x, y, w, h


@dataclass(frozen=True)
class AnnotatedSizes:
    """The frame that the boxes of each group of images were drawn in; None if unclear.

    A group has one kind of difference between stated and actual size. `mirrored` is the frame of images that EXIF
    mirrors or turns upside down, whose size shows nothing.
    """

    of_groups: Mapping[str, Frame | None]
    mirrored: Frame | None

    @classmethod
    def infer(cls, images: Iterable[AnnotatedImage], drawn_on: Frame | None = None) -> AnnotatedSizes:
        """Infer the frame of each group from all of its boxes.

        `drawn_on` is the frame of groups with boxes that fit in both. Pass the images of all splits at once: one tool
        wrote the annotations of a data set.
        """
        groups: dict[str, list[AnnotatedImage]] = {}
        for image in images:
            groups.setdefault(_group(image), []).append(image)
        frames = {
            name: _frame(name, group) or (drawn_on if name in _AMBIGUOUS_GROUPS else None)
            for name, group in groups.items()
        }
        turned = {frames[name] for name in (TURNED, _SHOWN) if name in frames}
        # Images whose size does not show turning follow those whose size does, and are unclear if those differ.
        return cls(frames, "file" if not turned else turned.pop() if len(turned) == 1 else None)

    @property
    def show_turning(self) -> bool:
        """True if there are images with boxes whose sizes show turning: mirrored images follow those."""
        return TURNED in self.of_groups or _SHOWN in self.of_groups

    def fit(self, image: AnnotatedImage) -> Rescaling | None:
        """Return the rescaling of an image's boxes, or None if unclear: not to be trained on.

        An image with boxes that fit only in the frame that is not its group's is unclear. An image of a group that was
        not passed to `infer` is decided by its own boxes. One without boxes, or of no stated size, changes its size
        alone.
        """
        group = _group(image)
        frame = self.of_groups[group] if group in self.of_groups else _frame(group, [image])
        return _fit(image, group, frame, self.mirrored)


def unclear_reason(image: AnnotatedImage) -> str:
    """Return the reason why an image's rescaling is unclear, to follow its name in a message."""
    width, height = image.file.upright
    if image.stated == image.file.upright:
        return f"EXIF turns or mirrors it to {width}x{height}, and it is unclear if its boxes were drawn before that"
    upright = " upright" if image.file.orientation > 1 else ""
    stated = "{}x{}".format(*image.stated)
    return f"stated {stated}, is {width}x{height}{upright}, and it is unclear for which of the two its boxes were drawn"


def _group(image: AnnotatedImage) -> str:
    stated, upright, stored = image.stated, image.file.upright, image.file.stored
    if min(stated + upright) <= 0 or not image.boxes:
        return _SAME
    if stated == upright:
        return _SAME if upright == stored else _SHOWN
    if image.file.orientation >= 5 and (
        stated == stored or (_same_shape(stated, stored) and not _same_shape(stated, upright))
    ):
        return TURNED
    if _same_shape(stated, upright):
        return SCALED
    return _SWAPPED if _same_shape(stated[::-1], upright) else _STRETCHED


def _frame(name: str, group: Sequence[AnnotatedImage]) -> Frame | None:
    """Return the frame of a group: that of the boxes that fit in one frame only, or the default.

    An image of another shape need not be stretched: it may have been cropped, or turned without EXIF.
    """
    if name == _SAME:
        return "file"
    if name == TURNED:  # images that were resized as well have boxes of neither frame's size
        group = [image for image in group if image.stated == image.file.stored] or group
    frames = [
        _frame_with_room(image.boxes, image.file.stored if name == _SHOWN else image.stated, image.file.upright)
        for image in group
    ]
    frequent: list[Frame] = [frame for frame in _FRAMES if frames.count(frame) >= _MIN_DECISIVE_FRACTION * len(group)]
    if not frequent:
        return _DEFAULT_FRAME[name]
    decisive = len(frequent) == 1 and (frequent[0] == "file" or _DEFAULT_FRAME[name] is not None)
    return frequent[0] if decisive else None


def _fit(image: AnnotatedImage, group: str, frame: Frame | None, mirrored: Frame | None) -> Rescaling | None:
    file = image.file
    size_alone = AS_STATED if image.stated == file.upright else Rescaling(SIZE_ALONE)
    if not image.boxes or min(image.stated + file.upright) <= 0:
        return size_alone
    is_default = group in (_SAME, SCALED) and frame == _DEFAULT_FRAME[group]
    if is_default and file.orientation > 1 and file.upright == file.stored:
        if mirrored is None:
            return None
        if mirrored == "stated":
            return _turning(image)
    if group == TURNED and frame == "file" and image.stated != file.stored:
        return Rescaling(SCALED, _scaling(image.stated[::-1], file.upright))
    if frame is None:
        return None
    if group in _AMBIGUOUS_GROUPS and _frame_with_room(image.boxes, image.stated, file.upright) not in (None, frame):
        return None
    if frame == "file":
        return size_alone
    return _turning(image) if group in (TURNED, _SHOWN) else Rescaling(SCALED, _scaling(image.stated, file.upright))


def _turning(image: AnnotatedImage) -> Rescaling:
    """Return the rescaling of boxes drawn on the image as stored, perhaps at another size."""
    file = image.file
    scale = _scaling(file.stored if _group(image) == _SHOWN else image.stated, file.stored)
    return Rescaling(TURNED, lambda box: _turned(scale(box), file.orientation, file.stored))


def _frame_with_room(boxes: Sequence[Box], drawn: Size, upright: Size) -> Frame | None:
    """Return the only frame that all boxes fit in; None if they fit in both or neither."""
    on_drawn, on_file = _fit_within(boxes, drawn), _fit_within(boxes, upright)
    return None if on_drawn == on_file else "stated" if on_drawn else "file"


def _fit_within(boxes: Sequence[Box], size: Size) -> bool:
    """Return whether all finite boxes lie within an image of that size, up to a small overhang."""
    width, height = (side * (1 + _MAX_OVERHANG) for side in size)
    return all(x + w <= width and y + h <= height for x, y, w, h in boxes if math.isfinite(x + y + w + h))


def _same_shape(first: Size, second: Size) -> bool:
    """Return whether two sizes have one aspect ratio, up to rounding; loosely if far apart."""
    if abs(second[0] * first[1] - second[1] * first[0]) <= max(sum(first), sum(second)):
        return True
    across, down = second[0] / first[0], second[1] / first[1]
    return abs(math.log(across)) > _MIN_LOG_RESIZE and abs(across / down - 1) < _MAX_ASPECT_CHANGE


def _scaling(before: Size, after: Size) -> Callable[[Box], Box]:
    across, down = after[0] / before[0], after[1] / before[1]
    return lambda box: (box[0] * across, box[1] * down, box[2] * across, box[3] * down)


def _turned(box: Box, orientation: int, stored: Size) -> Box:
    """Return a box of the stored image after EXIF's orientation, 2 to 8, is applied."""
    x, y, w, h = box
    across, down = stored[0] - x - w, stored[1] - y - h  # from the right and from the bottom
    left, top = {
        2: (across, y), 3: (across, down), 4: (x, down), 5: (y, x), 6: (down, x), 7: (down, across), 8: (y, across),
    }[orientation]  # fmt: skip
    return (left, top, h, w) if orientation >= 5 else (left, top, w, h)
