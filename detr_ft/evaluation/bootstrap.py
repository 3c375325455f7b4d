"""Confidence intervals of metrics, and of differences of two models, by resampling images.

An interval is of the average over sets of that many images. If classes have few objects, that average is higher than on a much
larger set, since the envelope of a short precision curve is too high; no interval over the same images can show that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from detr_ft.evaluation.coco import LIMITS, RECALLS, PrecisionRecall, summarize
from detr_ft.evaluation.detection_matching import AREAS, THRESHOLDS, Bools, DetectionMatches, Floats, Ints
from detr_ft.evaluation.metrics import Interval

LEVEL = 0.95
# Of differences. At 0.95 more than one in twenty pairs of equally good models would differ; at this level, about one in sixty.
DIFFERENCE_LEVEL = 0.99
_MAX_SETS, _MIN_SETS, _MAX_IMAGES = 1000, 200, 500_000  # fewer sets of many images, which vary less
# The fraction of resampled sets that must have a metric, or it has no interval: it then depends on one or two images, which
# are missing from one set in three or in seven.
_MIN_MEASURED = 0.9
_MIN_IMAGES = 3
_SETS_PER_CHUNK = 250  # bounds the memory
_MAX_DENSE_ENTRIES = (
    4_000_000  # of a table of detections and images; above, the weight of each detection is read by itself
)
_SETS_PER_READ = 32


@dataclass(frozen=True)
class Difference:
    """By how much a metric of a second model exceeds that of a first one on the same images."""

    value: float
    interval: Interval

    @property
    def real(self) -> bool:
        """True if the difference is more than another choice of images explains."""
        return self.interval.low > 0 or self.interval.high < 0


def intervals(matches: DetectionMatches, sets: int | None = None, seed: int = 0) -> dict[str, Interval | None]:
    """Return an interval for each of the twelve metrics, or None if it depends on too few images.

    From `sets` resampled sets; by default 1,000 of up to 500 images, and fewer of more images, at least 200.
    """
    weights = draw_weights(matches.num_images, sets or _default_sets(matches), seed)
    return {
        name: _interval(values, LEVEL, matches.num_images)
        for name, values in resampled_metrics(matches, weights).items()
    }


def differences(
    first: DetectionMatches, second: DetectionMatches, sets: int | None = None, seed: int = 0
) -> dict[str, Difference | None]:
    """Return by how much each metric of the second exceeds that of the first.

    Both are resampled together, so hard images are hard for both. Raises ValueError for different images or objects.
    """
    if first.num_images != second.num_images or not np.array_equal(first.objects.box, second.objects.box):
        raise ValueError("only models evaluated on the same images can be compared")
    weights = draw_weights(first.num_images, sets or _default_sets(first), seed)
    whole = np.ones((first.num_images, 1), np.int64)
    points, draws = _minus(second, first, whole), _minus(second, first, weights)
    bounds = {name: _interval(values, DIFFERENCE_LEVEL, first.num_images) for name, values in draws.items()}
    return {
        name: None if interval is None else Difference(float(points[name][0]), interval)
        for name, interval in bounds.items()
    }


def _default_sets(matches: DetectionMatches) -> int:
    return max(_MIN_SETS, min(_MAX_SETS, _MAX_IMAGES // max(1, matches.num_images)))


def _minus(minuend: DetectionMatches, subtrahend: DetectionMatches, weights: Ints) -> Mapping[str, Floats]:
    left, right = resampled_metrics(minuend, weights), resampled_metrics(subtrahend, weights)
    return {name: left[name] - right[name] for name in left}


def _interval(values: Floats, level: float, images: int) -> Interval | None:
    measured = values[~np.isnan(values)]
    if images < _MIN_IMAGES or len(measured) < _MIN_MEASURED * len(values):
        return None
    low, high = np.quantile(measured, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def draw_weights(num_images: int, sets: int, seed: int) -> Ints:
    """`[I, sets]`: how often each image is in each set, drawn with replacement (Efron 1979)."""
    drawn = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), sets)
    return drawn.T.astype(np.int64)


def resampled_metrics(matches: DetectionMatches, weights: Ints) -> dict[str, Floats]:
    """Return COCO's twelve metrics `[R]` for each of R resampled sets.

    `weights [I, R]` is how often each image is in each set. Equal, up to rounding, to the protocol on a set with each
    image that often; NaN if there are no objects to count. The matching of an image does not depend on other images, so
    only sums over images are computed again.
    """
    parts = [
        _metrics(matches, weights[:, low : low + _SETS_PER_CHUNK].astype(np.float64))
        for low in range(0, weights.shape[1], _SETS_PER_CHUNK)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _metrics(matches: DetectionMatches, weights: Floats) -> dict[str, Floats]:
    return summarize({area: _precision_recall(matches, area, weights) for area in AREAS}, _mean)


def _mean(values: Floats) -> Floats:
    """`[R]`: the mean over thresholds and the classes that are in the set; NaN without any."""
    has = ~np.isnan(values)
    sums, counts = np.where(has, values, 0).sum((0, 1)), has.sum((0, 1))
    return np.asarray(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))


def _precision_recall(matches: DetectionMatches, area: str, weights: Floats) -> PrecisionRecall:
    """Return precision `[T, K, R]`, the mean over recalls, and recall `[T, K, R]` by limit."""
    correct, counts = matches.outcomes(area)
    counted = matches.counted(area)
    shape = (len(THRESHOLDS), len(matches.names), weights.shape[1])
    precision = np.full(shape, np.nan)
    recall = {limit: np.full(shape, np.nan) for limit in LIMITS}
    for label, rows in enumerate(matches.class_slices):
        of_class = counted & (matches.objects.label == label)
        if not of_class.any():
            continue
        objects = np.bincount(matches.objects.image[of_class], minlength=matches.num_images) @ weights
        objects[objects == 0] = np.nan  # a set without the class
        image, rank = matches.detections.image[rows], matches.rank[rows]
        for level in range(len(THRESHOLDS)):
            hit, counting = correct[level, rows], counts[level, rows]
            precision[level, label] = _average_precision(image, hit, counting, weights, objects)
            for limit in LIMITS:
                per_image = np.bincount(image[hit & (rank < limit)], minlength=matches.num_images)
                recall[limit][level, label] = per_image @ weights / objects
    return PrecisionRecall(precision, recall)


def _average_precision(image: Ints, correct: Bools, counts: Bools, weights: Floats, objects: Floats) -> Floats:
    """`[R]`: the mean precision at 101 recalls, from the detections of a class, best first.

    Recall grows only at correct detections, so sums are needed only there. A detection that is not in a set repeats the recall
    of the one before it at no better precision, which changes nothing.
    """
    at = np.flatnonzero(correct)
    if not len(at):
        return np.where(np.isnan(objects), np.nan, 0.0)
    hits = _running_sums(np.arange(len(at)), image[at], weights)
    counting = np.flatnonzero(counts[: at[-1] + 1])
    total = _running_sums(np.searchsorted(at, counting), image[counting], weights)
    precision = np.divide(hits, total, out=np.zeros_like(hits), where=total > 0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = _recalls_reached(hits / objects)
    value = (envelope * np.diff(reached, axis=0, prepend=0)).sum(0) / len(RECALLS)
    return np.where(np.isnan(objects), np.nan, value)


def _running_sums(step: Ints, image: Ints, weights: Floats) -> Floats:
    """`[steps, R]`: the weights of the images of all rows up to each step; steps rise, and each has a row."""
    steps, images = int(step[-1]) + 1, len(weights)
    if steps * images <= _MAX_DENSE_ENTRIES:
        counts = np.bincount(step * images + image, minlength=steps * images).reshape(steps, images)
        return np.asarray(np.cumsum(counts, axis=0).astype(np.float64) @ weights)
    starts = np.searchsorted(step, np.arange(steps))
    parts = [
        np.add.reduceat(weights[image, low : low + _SETS_PER_READ], starts, axis=0).cumsum(0)
        for low in range(0, weights.shape[1], _SETS_PER_READ)
    ]
    return np.concatenate(parts, axis=1)


def _recalls_reached(recall: Floats) -> Ints:
    """Return how many of the 101 recalls are no larger than each; compared as floats, as in the protocol."""
    whole = np.floor(np.nan_to_num(recall) * (len(RECALLS) - 1)).astype(np.int64)
    return whole + 1 - (RECALLS[whole] > np.nan_to_num(recall))
