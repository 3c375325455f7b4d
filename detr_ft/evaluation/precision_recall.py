"""Precision and recall of every class by COCO's protocol, and the twelve metrics from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from detr_ft.evaluation.detection_matching import AREAS, MAX_DETECTIONS, THRESHOLDS, DetectionMatches, Floats

LIMITS = (1, 10, MAX_DETECTIONS)  # detections of a class in an image
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision `[T, ...]` and, by limit, recall `[T, ...]`: ten thresholds, then classes."""

    precision: Floats
    recall: Mapping[int, Floats]


def precision_recall(matches: DetectionMatches, area: str) -> PrecisionRecall:
    """Return precision `[T, 101, K]` at each of 101 recalls, and recall `[T, K]`.

    `area` is one of `AREAS`. Classes without objects have -1.
    """
    correct, counts = matches.outcomes(area)
    objects = matches.objects_per_class(area)
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(matches.names)), -1.0)
    recall = {limit: np.full((len(THRESHOLDS), len(matches.names)), -1.0) for limit in LIMITS}
    for label, rows in enumerate(matches.class_slices):
        if not objects[label]:
            continue
        hits, counted = (np.cumsum(column[:, rows], axis=1, dtype=np.float64) for column in (correct, counts))
        precision[:, :, label] = interpolated(hits, counted, objects[label])
        for limit in LIMITS:
            within = matches.rank[rows] < limit
            recall[limit][:, label] = correct[:, rows][:, within].sum(1) / objects[label]
    return PrecisionRecall(precision, recall)


def interpolated(hits: Floats, counted: Floats, objects: int) -> Floats:
    """`[T, 101]`: the best precision at each recall or beyond, from running sums `[T, D]`.

    It is 0 for recalls that are not reached.
    """
    precision = hits / (counted + np.spacing(1))  # as in pycocotools: rows that don't count may come first
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    first = np.stack([np.searchsorted(row, RECALLS, side="left") for row in hits / objects])
    return np.take_along_axis(envelope, first, axis=1)


def summarize(tables: Mapping[str, PrecisionRecall], mean: Callable[[Floats], Value]) -> dict[str, Value]:
    """Return `COCO_METRICS` by name, from a table for each of `AREAS`, by a mean of their values."""
    whole, sizes = tables["all"], [area for area in AREAS if area != "all"]
    at_75 = int(np.argmin(np.abs(THRESHOLDS - 0.75)))
    metrics = {
        "map": mean(whole.precision),
        "map_50": mean(whole.precision[:1]),
        "map_75": mean(whole.precision[at_75 : at_75 + 1]),
    }
    metrics |= {f"map_{size}": mean(tables[size].precision) for size in sizes}
    metrics |= {f"mar_{limit}": mean(whole.recall[limit]) for limit in LIMITS}
    return metrics | {f"mar_{size}": mean(tables[size].recall[MAX_DETECTIONS]) for size in sizes}
