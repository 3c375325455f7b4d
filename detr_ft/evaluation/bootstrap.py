"""The figures of a set in which images count several times or not at all, for many such sets at once.

Which detections are right in an image doesn't depend on the other images: only sums over images are made again.
"""

from __future__ import annotations

import numpy as np

from detr_ft.evaluation.coco_summary import LIMITS, Table, summarise
from detr_ft.evaluation.detection_matching import AREAS, THRESHOLDS, Bools, DetectionMatches, Floats, Ints
from detr_ft.evaluation.precision_recall import RECALLS

_AT_ONCE = 250  # sets, which bounds the memory
_DENSE = 4_000_000  # entries of a table of detections and images, above which each detection is looked up by itself
_FEW = 32  # sets, for which that is done at once


def resampled(marks: DetectionMatches, weights: Ints) -> dict[str, Floats]:
    """COCO's twelve figures `[R]` for each of R sets; `weights [I, R]` says how often each image is in each.

    Equal, to rounding, to the protocol on a set that holds each image so often; NaN where there is nothing to count.
    """
    parts = [
        _figures(marks, weights[:, low : low + _AT_ONCE].astype(np.float64))
        for low in range(0, weights.shape[1], _AT_ONCE)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def draw(num_images: int, times: int, seed: int) -> Ints:
    """`[I, times]`: how often each image is in each of so many sets, drawn with replacement (Efron 1979)."""
    drawn = np.random.default_rng(seed).multinomial(num_images, np.full(num_images, 1 / num_images), times)
    return drawn.T.astype(np.int64)


def _figures(marks: DetectionMatches, weights: Floats) -> dict[str, Floats]:
    return summarise({area: _table(marks, area, weights) for area in AREAS}, _mean)


def _mean(values: Floats) -> Floats:
    """`[R]`: over thresholds and the classes that the set has; NaN where it has none."""
    has = ~np.isnan(values)
    sums, counts = np.where(has, values, 0).sum((0, 1)), has.sum((0, 1))
    return np.asarray(np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0))


def _table(marks: DetectionMatches, area: str, weights: Floats) -> Table:
    """Precision `[T, K, R]`, the mean over recalls, and recall `[T, K, R]` by limit."""
    right, counts = marks.marked(area)
    counted = marks.counted(area)
    shape = (len(THRESHOLDS), len(marks.names), weights.shape[1])
    precision = np.full(shape, np.nan)
    recall = {limit: np.full(shape, np.nan) for limit in LIMITS}
    for label, rows in enumerate(marks.of_class):
        mine = counted & (marks.objects.label == label)
        if not mine.any():
            continue
        objects = np.bincount(marks.objects.image[mine], minlength=marks.num_images) @ weights
        objects[objects == 0] = np.nan  # a set without the class
        image, place = marks.found.image[rows], marks.place[rows]
        for level in range(len(THRESHOLDS)):
            hit, known = right[level, rows], counts[level, rows]
            precision[level, label] = _average_precision(image, hit, known, weights, objects)
            for limit in LIMITS:
                of_image = np.bincount(image[hit & (place < limit)], minlength=marks.num_images)
                recall[limit][level, label] = of_image @ weights / objects
    return Table(precision, recall)


def _average_precision(image: Ints, right: Bools, counts: Bools, weights: Floats, objects: Floats) -> Floats:
    """`[R]`: the mean precision at 101 recalls, from the detections of a class, best first.

    Only at right ones does recall grow, so only there are sums needed. One that is not in a set repeats the recall of
    that before it at no better precision, which changes nothing.
    """
    at = np.flatnonzero(right)
    if not len(at):
        return np.where(np.isnan(objects), np.nan, 0.0)
    hits = _running(np.arange(len(at)), image[at], weights)
    known = np.flatnonzero(counts[: at[-1] + 1])
    seen = _running(np.searchsorted(at, known), image[known], weights)
    precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = _recalls_reached(hits / objects)
    value = (envelope * np.diff(reached, axis=0, prepend=0)).sum(0) / len(RECALLS)
    return np.where(np.isnan(objects), np.nan, value)


def _running(step: Ints, image: Ints, weights: Floats) -> Floats:
    """`[steps, R]`: the weights of the images of all rows up to each step; steps rise, and each has a row."""
    steps, images = int(step[-1]) + 1, len(weights)
    if steps * images <= _DENSE:
        counts = np.bincount(step * images + image, minlength=steps * images).reshape(steps, images)
        return np.asarray(np.cumsum(counts, axis=0).astype(np.float64) @ weights)
    starts = np.searchsorted(step, np.arange(steps))
    parts = [
        np.add.reduceat(weights[image, low : low + _FEW], starts, axis=0).cumsum(0)
        for low in range(0, weights.shape[1], _FEW)
    ]
    return np.concatenate(parts, axis=1)


def _recalls_reached(recall: Floats) -> Ints:
    """How many of the 101 recalls are no larger than each; compared as floats, as the protocol does."""
    whole = np.floor(np.nan_to_num(recall) * (len(RECALLS) - 1)).astype(np.int64)
    return whole + 1 - (RECALLS[whole] > np.nan_to_num(recall))
