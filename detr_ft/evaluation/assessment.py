"""Metrics with intervals, error analysis, thresholds and slices of a matched set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detr_ft.evaluation.bootstrap import intervals, resampled_metrics
from detr_ft.evaluation.coco import metrics_of_matches
from detr_ft.evaluation.detection_matching import Bools, DetectionMatches, Ints
from detr_ft.evaluation.metrics import (
    Calibration,
    ConfusionMatrix,
    CrowdingSlice,
    ErrorCost,
    EvaluationMetrics,
    FrequencySlice,
    Interval,
    ThresholdChoice,
)
from detr_ft.evaluation.thresholds import above_thresholds, best_thresholds, calibration, confusion
from detr_ft.evaluation.tide import Errors, find_errors

_CROWDING = {"1 object": (1, 1), "2 to 5": (2, 5), "6 to 15": (6, 15), "more than 15": (16, None)}
_FREQUENCY = {"under 20 boxes": (0, 19), "20 to 200": (20, 200), "over 200": (201, None)}


@dataclass(frozen=True, eq=False)
class Assessment:
    """Everything computed from a matched set; `coco` is as `coco_metrics` returns it."""

    matches: DetectionMatches
    coco: dict[str, Any]
    intervals: dict[str, Interval | None]
    errors: Errors
    costs: dict[str, float]
    thresholds: dict[str, ThresholdChoice]
    confusion: Ints
    calibration: Calibration
    crowding: dict[str, CrowdingSlice]
    frequency: dict[str, FrequencySlice]

    def metrics(self) -> EvaluationMetrics:
        """Return the content of `metrics.json`, without the sections that need the model."""
        counts = self.errors.counts
        return replace(
            EvaluationMetrics.of_coco(self.coco),
            intervals=self.intervals,
            errors={kind: ErrorCost(counts[kind], cost) for kind, cost in self.costs.items()},
            thresholds=self.thresholds,
            confusion=ConfusionMatrix([*self.matches.names, "background"], self.confusion.tolist()),
            calibration=self.calibration,
            by_crowding=self.crowding,
            by_frequency=self.frequency,
            images=self.matches.num_images,
        )


def assess(
    matches: DetectionMatches, trained_on: Mapping[str, int] | None = None, sets: int | None = None, seed: int = 0
) -> Assessment:
    """Assess a matched set.

    `trained_on` is the number of boxes of each class in the training data, if known. `sets` and `seed` are of the
    resampled sets of the intervals.
    """
    coco, errors, thresholds = metrics_of_matches(matches), find_errors(matches), best_thresholds(matches)
    return Assessment(
        matches,
        coco,
        intervals(matches, sets, seed),
        errors,
        errors.costs(),
        thresholds,
        confusion(matches, above_thresholds(matches, thresholds)),
        calibration(matches),
        by_crowding(matches),
        by_frequency(coco["per_class"], trained_on) if trained_on is not None else {},
    )


def by_crowding(matches: DetectionMatches) -> dict[str, CrowdingSlice]:
    """Return metrics of the images with a similar number of objects."""
    objects = np.bincount(matches.objects.image[matches.counted("all")], minlength=matches.num_images)
    members = {name: _within(objects, *limits) for name, limits in _CROWDING.items()}
    members = {name: inside for name, inside in members.items() if inside.any()}
    if not members:
        return {}
    values = resampled_metrics(matches, np.stack(list(members.values()), axis=1).astype(np.int64))
    return {
        name: CrowdingSlice(int(inside.sum()), *(_or_none(values[key][index]) for key in ("map", "map_50", "mar_100")))
        for index, (name, inside) in enumerate(members.items())
    }


def by_frequency(
    per_class: Mapping[str, Mapping[str, Any]], trained_on: Mapping[str, int]
) -> dict[str, FrequencySlice]:
    """Return mean metrics of the classes with a similar number of boxes in the training data."""
    slices: dict[str, FrequencySlice] = {}
    for name, limits in _FREQUENCY.items():
        rows = [row for label, row in per_class.items() if _within(np.array(trained_on.get(label, 0)), *limits)]
        if rows:
            means = (float(np.mean([row[key] for row in rows])) for key in ("map", "map_50"))
            slices[name] = FrequencySlice(len(rows), *means)
    return slices


def _within(count: Ints, low: int, high: int | None) -> Bools:
    return (count >= low) & (count <= high if high is not None else True)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
