"""Formats of boxes: their conversion to COCO xywh in pixels, and their detection from the images.

Nothing in a data set states the format of its four numbers, but the images do: read in the wrong format, many boxes
leave their image or have no area. The Hub's convention, xywh in pixels, applies unless another format fits clearly better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from detr_ft.errors import InputError

BoxFormatName = Literal["xywh", "xyxy", "cxcywh", "xywh-fractions", "xyxy-fractions", "cxcywh-fractions"]
Numbers = NDArray[np.float64]

_SLACK_PX = 1.0  # rounding to whole pixels moves an edge by up to this
_SLACK_FRACTION = 2e-3
_MIN_SIDE_PX = 1 - 1e-6  # thinner boxes are not in pixels
_MIN_FITTING_FRACTION = 0.9  # of the boxes, for a format to be accepted
_MIN_LEAD_FRACTION, _MIN_LEAD_BOXES = 0.02, 3  # a smaller lead may come from a few defective boxes
_MIN_MISFIT_RATIO = 20  # times fewer boxes that don't fit, for another format to contradict the stated one


@dataclass(frozen=True)
class BoxFormat:
    """The meaning of a box's four numbers: its `corners`, and the `unit` of all four."""

    corners: Literal["xywh", "xyxy", "cxcywh"] = "xywh"
    unit: Literal["pixels", "fractions"] = "pixels"

    @classmethod
    def parse(cls, name: str) -> BoxFormat:
        """Return the format of a name, as `xyxy` or `xyxy-fractions` (of the image). Raises InputError."""
        for format in FORMATS:
            if format.name == name.strip().lower():
                return format
        raise InputError(f"box_format: {name!r} is unknown. Choose one of {', '.join(get_args(BoxFormatName))}.")

    @property
    def name(self) -> str:
        """The name in a recipe and for `--box-format`."""
        return self.corners + ("-fractions" if self.unit == "fractions" else "")

    def __str__(self) -> str:
        return f"{self.corners} in {self.unit}"

    def to_xywh(self, boxes: Numbers, sizes: Numbers) -> Numbers:
        """Convert boxes `[N, 4]` in images of `sizes` `[N, 2]` (width, height) to xywh in pixels `[N, 4]`."""
        first, second = boxes[:, :2], boxes[:, 2:]
        scale = np.tile(sizes, 2) if self.unit == "fractions" else 1.0
        with np.errstate(invalid="ignore", over="ignore"):  # NaN, Inf and huge numbers stay as they are
            if self.corners == "xyxy":
                second = second - first
            elif self.corners == "cxcywh":
                first = first - second / 2
            return np.concatenate([first, second], axis=1) * scale

    def fits(self, boxes: Numbers, sizes: Numbers) -> NDArray[np.bool_]:
        """Return a mask `[N]` of the boxes that, in this format, have an area and lie within their image."""
        with np.errstate(invalid="ignore", over="ignore"):  # NaN, Inf and huge numbers fit nothing
            xywh = self.to_xywh(boxes, sizes)
            slack = sizes * _SLACK_FRACTION if self.unit == "fractions" else _SLACK_PX
            min_side = 0.0 if self.unit == "fractions" else _MIN_SIDE_PX
            inside = (xywh[:, :2] >= -slack) & (xywh[:, :2] + xywh[:, 2:] <= sizes + slack)
            return np.asarray((inside & (xywh[:, 2:] >= min_side) & (xywh[:, 2:] > 0)).all(axis=1))


# In the order of preference if several fit equally.
FORMATS = tuple(BoxFormat(corners, unit) for unit in ("pixels", "fractions") for corners in ("xywh", "xyxy", "cxcywh"))
XYWH = FORMATS[0]


@dataclass(frozen=True)
class FormatReading:
    """The `format` of boxes, the number that `fits` their image in each format, and the `doubt`, if any."""

    format: BoxFormat
    boxes: int
    fits: dict[BoxFormat, int]
    doubt: str = ""

    def __str__(self) -> str:
        text = f"boxes read as {self.format} ({self.fits[self.format]:,} of {self.boxes:,} fit their image"
        rivals = [
            format
            for format, count in self.fits.items()
            if format != self.format and (self.doubt or format == XYWH) and count
        ]
        text += "".join(f"; as {_short(format)} {self.fits[format]:,}" for format in rivals) + ")"
        return f"{text}: {self.doubt}" if self.doubt else text


def recognize_format(boxes: Numbers, sizes: Numbers, among: Sequence[BoxFormat] = FORMATS) -> FormatReading:
    """Detect the format of boxes `[N, 4]` in images of `sizes` `[N, 2]`.

    `among` is in the order of preference. Pass the boxes of all splits at once. Boxes that are not finite, and those of images
    of unknown size, are ignored.
    """
    usable = _usable(boxes, sizes)
    count = int(usable.sum())
    fits = _count_fits(boxes[usable], sizes[usable], among)
    if not count:
        doubt = "no box has numbers and an image whose size is known" if len(boxes) else ""
        return FormatReading(among[0], 0, fits, doubt)
    best = max(among, key=lambda format: fits[format])  # the first of equals
    if fits[best] < _MIN_FITTING_FRACTION * count:
        return FormatReading(among[0], count, fits, "no format fits well")
    # If every box fits the preferred format, a rival could be right only if all of its misfits were defective.
    certain = best == among[0] and fits[best] == count
    lead = _MIN_LEAD_BOXES if certain else max(_MIN_LEAD_BOXES, _MIN_LEAD_FRACTION * count)
    close = [format for format in among if fits[format] > fits[best] - lead]
    # The preferred format wins a near tie: the rest of its boxes may be defective.
    chosen = close[0] if fits[close[0]] >= _MIN_FITTING_FRACTION * count else best
    rivals = [format for format in close if format != chosen and _differ(format, chosen, boxes[usable], sizes[usable])]
    likely = " or ".join(_short(format) for format in rivals if fits[format])
    doubt = f"they might as well be {likely}" if likely else "too few boxes to be sure" if rivals else ""
    return FormatReading(chosen, count, fits, doubt)


def check_format(format: BoxFormat, boxes: Numbers, sizes: Numbers) -> FormatReading:
    """Return the reading of boxes in the format that the user states, doubtful if many do not fit.

    Raises InputError if most do not fit and another format fits.
    """
    usable = _usable(boxes, sizes)
    count = int(usable.sum())
    fits = _count_fits(boxes[usable], sizes[usable], FORMATS)
    best = max(FORMATS, key=lambda other: fits[other])
    if fits[format] < count / 2 and fits[best] >= _MIN_FITTING_FRACTION * count:
        raise InputError(
            f"box_format: {format.name} is wrong, {count - fits[format]:,} of {count:,} boxes don't fit their image. "
            f"Use {best.name}: {fits[best]:,} fit."
        )
    doubt = "box_format doesn't fit them well" if fits[format] < _MIN_FITTING_FRACTION * count else ""
    return FormatReading(format, count, {format: fits[format]}, doubt)


def contradicting_format(boxes: Numbers, sizes: Numbers) -> BoxFormat | None:
    """Return the format of boxes that are not xywh in pixels as stated, or None if they may be.

    Another format counts only if it explains nearly all boxes that do not fit: defective boxes, which leave their image to
    the right or below, often fit as cxcywh, and then some of the valid ones do not.
    """
    reading = recognize_format(boxes, sizes)
    misfits = {format: reading.boxes - count for format, count in reading.fits.items()}
    explained = misfits[reading.format] * _MIN_MISFIT_RATIO <= misfits[XYWH]
    return reading.format if reading.format != XYWH and not reading.doubt and explained else None


def _usable(boxes: Numbers, sizes: Numbers) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1))


def _count_fits(boxes: Numbers, sizes: Numbers, formats: Sequence[BoxFormat]) -> dict[BoxFormat, int]:
    return {format: int(format.fits(boxes, sizes).sum()) for format in formats}


def _short(format: BoxFormat) -> str:
    return format.corners if format.unit == "pixels" else str(format)


def _differ(first: BoxFormat, second: BoxFormat, boxes: Numbers, sizes: Numbers) -> bool:
    """Return whether two formats give boxes that differ by more than a pixel."""
    with np.errstate(invalid="ignore", over="ignore"):
        return bool((np.abs(first.to_xywh(boxes, sizes) - second.to_xywh(boxes, sizes)) > _SLACK_PX).any())
