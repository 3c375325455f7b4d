"""All that is to be said of a marked set: figures and how sure they are, what went wrong, from which score on to believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detr_ft.evaluation.calibration import calibration
from detr_ft.evaluation.coco import figures_of
from detr_ft.evaluation.confusion import confusion
from detr_ft.evaluation.detection_matching import DetectionMatches, Ints
from detr_ft.evaluation.intervals import intervals
from detr_ft.evaluation.metrics import (
    Calibration,
    ClassMetrics,
    ConfusionMatrix,
    CrowdingSlice,
    ErrorCost,
    EvaluationMetrics,
    FrequencySlice,
    Interval,
    ThresholdChoice,
)
from detr_ft.evaluation.slices import by_crowding, by_frequency
from detr_ft.evaluation.thresholds import above_thresholds, best_thresholds
from detr_ft.evaluation.tide import Errors, errors_of


@dataclass(frozen=True, eq=False)
class Assessment:
    """What a set says of a model. `figures` are as `coco_metrics` gives them; the rest is each module's own."""

    marks: DetectionMatches
    figures: dict[str, Any]
    intervals: dict[str, Interval | None]
    errors: Errors
    costs: dict[str, float]
    thresholds: dict[str, ThresholdChoice]
    confusion: Ints
    calibration: Calibration
    crowding: dict[str, CrowdingSlice]
    frequency: dict[str, FrequencySlice]

    def metrics(self) -> EvaluationMetrics:
        """The content of `metrics.json`, without the sections that need the model."""
        counts, coco = self.errors.counts, dict(self.figures)
        per_class = {name: ClassMetrics(**row) for name, row in coco.pop("per_class").items()}
        return EvaluationMetrics(
            **coco,
            per_class=per_class,
            intervals=self.intervals,
            errors={kind: ErrorCost(counts[kind], cost) for kind, cost in self.costs.items()},
            thresholds=self.thresholds,
            confusion=ConfusionMatrix([*self.marks.names, "background"], self.confusion.tolist()),
            calibration=self.calibration,
            by_crowding=self.crowding,
            by_frequency=self.frequency,
            images=self.marks.num_images,
        )


def assess(
    marks: DetectionMatches, trained_on: Mapping[str, int] | None = None, times: int | None = None, seed: int = 0
) -> Assessment:
    """Assess a marked set; `trained_on` says how many boxes of each class the model was trained on, where that is known."""
    figures, errors, thresholds = figures_of(marks), errors_of(marks), best_thresholds(marks)
    return Assessment(
        marks,
        figures,
        intervals(marks, times, seed),
        errors,
        errors.costs(),
        thresholds,
        confusion(marks, above_thresholds(marks, thresholds)),
        calibration(marks),
        by_crowding(marks),
        by_frequency(figures["per_class"], trained_on) if trained_on is not None else {},
    )
