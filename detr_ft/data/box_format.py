"""The formats in which data sets write boxes, their conversion to COCO xywh in pixels, and how one is recognised.

Nothing in a data set says which format its four numbers are in, but the images do: read in the wrong format, many boxes
leave their image, or have no area. The Hub's convention is xywh in pixels; it stands unless another format fits plainly better.
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

_PIXEL_SLACK = 1.0  # what rounding to whole pixels can do to an edge
_FRACTION_SLACK = 2e-3
_LEAST_PIXELS = 1 - 1e-6  # a box thinner than a pixel says that its numbers aren't pixels
_WELL = 0.9  # the part of the boxes that a format has to fit to be believed
_LEAST_EXPLAINED = 20  # times fewer boxes that don't fit, for another format to contradict the one that is stated
_NOISE, _LEAST_LEAD = 0.02, 3  # a lead of fewer boxes than this part, or number, may come from a few defects


@dataclass(frozen=True)
class BoxFormat:
    """What the four numbers of a box are: its `corners`, and the `unit` of all four."""

    corners: Literal["xywh", "xyxy", "cxcywh"] = "xywh"
    unit: Literal["pixels", "fractions"] = "pixels"

    @classmethod
    def parse(cls, name: str) -> BoxFormat:
        """The format written `xyxy`, or `xyxy-fractions` (of the image's width and height). Raises InputError."""
        for one in FORMATS:
            if one.name == name.strip().lower():
                return one
        raise InputError(f"box_format {name!r} is unknown; it is one of {', '.join(get_args(BoxFormatName))}")

    @property
    def name(self) -> str:
        """How a recipe and `--box-format` write it."""
        return self.corners + ("-fractions" if self.unit == "fractions" else "")

    def __str__(self) -> str:
        return f"{self.corners} in {self.unit}"

    def to_xywh(self, boxes: Numbers, sizes: Numbers) -> Numbers:
        """Boxes `[N, 4]` in this format, in images of `sizes` `[N, 2]` (width, height), as xywh in pixels `[N, 4]`."""
        first, second = boxes[:, :2], boxes[:, 2:]
        scale = np.tile(sizes, 2) if self.unit == "fractions" else 1.0
        with np.errstate(invalid="ignore", over="ignore"):  # NaN, Inf and huge numbers stay what they are
            if self.corners == "xyxy":
                second = second - first
            elif self.corners == "cxcywh":
                first = first - second / 2
            return np.concatenate([first, second], axis=1) * scale

    def fits(self, boxes: Numbers, sizes: Numbers) -> NDArray[np.bool_]:
        """Whether each box `[N, 4]`, read in this format, has an area and lies within its image, `[N]`."""
        with np.errstate(invalid="ignore", over="ignore"):  # NaN, Inf and huge numbers fit nothing
            read = self.to_xywh(boxes, sizes)
            slack = sizes * _FRACTION_SLACK if self.unit == "fractions" else _PIXEL_SLACK
            least = 0.0 if self.unit == "fractions" else _LEAST_PIXELS
            inside = (read[:, :2] >= -slack) & (read[:, :2] + read[:, 2:] <= sizes + slack)
            return np.asarray((inside & (read[:, 2:] >= least) & (read[:, 2:] > 0)).all(axis=1))


# In the order of preference where several fit alike.
FORMATS = tuple(BoxFormat(corners, unit) for unit in ("pixels", "fractions") for corners in ("xywh", "xyxy", "cxcywh"))
XYWH = FORMATS[0]


@dataclass(frozen=True)
class Reading:
    """In which `format` boxes are read, how many fit their image under each format, and the `doubt`, if there is any."""

    format: BoxFormat
    boxes: int
    fits: dict[BoxFormat, int]
    doubt: str = ""

    def __str__(self) -> str:
        text = f"boxes read as {self.format} ({self.fits[self.format]:,} of {self.boxes:,} fit their image"
        rivals = [
            one for one in self.fits if one != self.format and (self.doubt or one == FORMATS[0]) and self.fits[one]
        ]
        text += "".join(f"; as {_short(one)} {self.fits[one]:,}" for one in rivals) + ")"
        return f"{text}: {self.doubt}" if self.doubt else text


def recognise(boxes: Numbers, sizes: Numbers, among: Sequence[BoxFormat] = FORMATS) -> Reading:
    """The format of boxes `[N, 4]` in images of `sizes` `[N, 2]`, among those given, the most preferred first.

    All splits belong into one call. Boxes that aren't finite, and those of images without a size, tell nothing.
    """
    telling = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1)
    count = int(telling.sum())
    fits = {one: int(one.fits(boxes[telling], sizes[telling]).sum()) for one in among}
    if not count:
        doubt = "no box has numbers and an image whose size is known" if len(boxes) else ""
        return Reading(among[0], 0, fits, doubt)
    best = max(among, key=lambda one: fits[one])  # the first among equals
    if fits[best] < _WELL * count:
        return Reading(among[0], count, fits, "no format fits well")
    # Where every box fits the preferred, a rival could only be the truth if all of its misfits were defective: a few tell.
    certain = best == among[0] and fits[best] == count
    lead = _LEAST_LEAD if certain else max(_LEAST_LEAD, _NOISE * count)
    alike = [one for one in among if fits[one] > fits[best] - lead]
    # The preferred keeps what it nearly wins: the rest of its boxes may be defective.
    chosen = alike[0] if fits[alike[0]] >= _WELL * count else best
    rivals = [one for one in alike if one != chosen and _differ(one, chosen, boxes[telling], sizes[telling])]
    likely = " or ".join(_short(one) for one in rivals if fits[one])
    doubt = f"they might as well be {likely}" if likely else "too few boxes to be sure" if rivals else ""
    return Reading(chosen, count, fits, doubt)


def given(format: BoxFormat, boxes: Numbers, sizes: Numbers) -> Reading:
    """The reading of boxes whose format is told: doubtful where they don't fit their images well.

    Raises InputError where most don't fit, and another format fits: then it was told wrongly.
    """
    telling = np.isfinite(boxes).all(axis=1) & (sizes > 0).all(axis=1)
    count = int(telling.sum())
    fits = {one: int(one.fits(boxes[telling], sizes[telling]).sum()) for one in FORMATS}
    best = max(FORMATS, key=lambda one: fits[one])
    if fits[format] < count / 2 and fits[best] >= _WELL * count:
        raise InputError(
            f"box_format {format.name} is wrong for these boxes: {count - fits[format]:,} of {count:,} don't fit their image; "
            f"as {best.name} {fits[best]:,} do"
        )
    doubt = "box_format doesn't fit them well" if fits[format] < _WELL * count else ""
    return Reading(format, count, {format: fits[format]}, doubt)


def contradicted(boxes: Numbers, sizes: Numbers) -> BoxFormat | None:
    """Return the format that boxes written as xywh in pixels are in instead, or None if xywh in pixels may be right.

    Another format counts only if it explains nearly all boxes that do not fit: defective boxes, which leave their image to
    the right or below, often fit as cxcywh, and then some of the valid ones do not.
    """
    reading = recognise(boxes, sizes)
    misfits = {format: reading.boxes - reading.fits[format] for format in FORMATS}
    explained = misfits[reading.format] * _LEAST_EXPLAINED <= misfits[XYWH]
    return reading.format if reading.format != XYWH and not reading.doubt and explained else None


def _short(one: BoxFormat) -> str:
    return one.corners if one.unit == "pixels" else str(one)


def _differ(one: BoxFormat, other: BoxFormat, boxes: Numbers, sizes: Numbers) -> bool:
    """Whether two formats make other boxes of the same numbers, as far as anybody could see it."""
    with np.errstate(invalid="ignore", over="ignore"):
        return bool((np.abs(one.to_xywh(boxes, sizes) - other.to_xywh(boxes, sizes)) > _PIXEL_SLACK).any())
