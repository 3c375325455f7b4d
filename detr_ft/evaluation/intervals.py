"""How sure a figure is: intervals over images, and whether two models differ by more than the choice of images explains.

An interval is of what sets of that many images give on average. Where classes have few objects that is more than a much larger
set gives, since the envelope of a short precision curve reads too high; no interval over the same images can see that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from detr_ft.evaluation.bootstrap import draw, resampled
from detr_ft.evaluation.detection_matching import DetectionMatches, Floats
from detr_ft.evaluation.metrics import Interval

LEVEL = 0.95  # of such intervals cover what they are to, in the long run
# Of differences. At 0.95 more than one in twenty pairs of equally good models would differ; at this one, about one in sixty.
DIFFERENCE_LEVEL = 0.99
_MOST, _LEAST, _IMAGES = 1000, 200, 500_000  # resampled sets; fewer of many images, which vary less
# Of the resampled sets so many must have a figure, or there is no interval of it: it then hangs on two images or one, which
# are missing from one set in seven, or in three.
_KNOWN = 0.9
_FEWEST = 3  # images, below which there is no interval of anything


@dataclass(frozen=True)
class Difference:
    """How much more a second model has than a first, on the same images."""

    value: float
    interval: Interval

    @property
    def real(self) -> bool:
        """Whether it is more than another choice of images would give."""
        return self.interval.low > 0 or self.interval.high < 0


def intervals(marks: DetectionMatches, times: int | None = None, seed: int = 0) -> dict[str, Interval | None]:
    """An interval for each of the twelve figures, or None where too few images have to do with it.

    From `times` resampled sets; left out, from 1,000 of up to 500 images, and fewer of more, 200 at least.
    """
    times = times or _times(marks)
    return {
        name: _interval(values, LEVEL, marks.num_images)
        for name, values in resampled(marks, draw(marks.num_images, times, seed)).items()
    }


def differences(
    first: DetectionMatches, second: DetectionMatches, times: int | None = None, seed: int = 0
) -> dict[str, Difference | None]:
    """For each figure, how much more the second has: both are resampled together, so hard images are hard for both.

    The two must be of the same images and objects; raises ValueError where they are not.
    """
    if first.num_images != second.num_images or not np.array_equal(first.objects.box, second.objects.box):
        raise ValueError("only models that saw the same images can be compared")
    weights = draw(first.num_images, times or _times(first), seed)
    whole = np.ones((first.num_images, 1), np.int64)
    points, draws = _minus(second, first, whole), _minus(second, first, weights)
    found = {name: _interval(values, DIFFERENCE_LEVEL, first.num_images) for name, values in draws.items()}
    return {
        name: None if interval is None else Difference(float(points[name][0]), interval)
        for name, interval in found.items()
    }


def _times(marks: DetectionMatches) -> int:
    return max(_LEAST, min(_MOST, _IMAGES // max(1, marks.num_images)))


def _minus(
    one: DetectionMatches, other: DetectionMatches, weights: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
) -> Mapping[str, Floats]:
    ours, theirs = resampled(one, weights), resampled(other, weights)
    return {name: ours[name] - theirs[name] for name in ours}


def _interval(values: Floats, level: float, images: int) -> Interval | None:
    known = values[~np.isnan(values)]
    if images < _FEWEST or len(known) < _KNOWN * len(values):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
