"""All that is to be said of a marked set: figures and how sure they are, what went wrong, from which score on to believe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from detr_ft.evaluation.calibration import Calibration, calibration
from detr_ft.evaluation.coco import figures_of
from detr_ft.evaluation.confusion import confusion
from detr_ft.evaluation.detection_matching import DetectionMatches, Ints
from detr_ft.evaluation.intervals import Interval, intervals
from detr_ft.evaluation.slices import Group, by_crowding, by_frequency
from detr_ft.evaluation.thresholds import ThresholdChoice, above_thresholds, best_thresholds
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
    crowding: dict[str, Group]
    frequency: dict[str, Group]

    def as_json(self) -> dict[str, Any]:
        """The figures, and `intervals` (95 %), `errors`, `thresholds`, `confusion`, `calibration` and groups beside them."""
        counts = self.errors.counts
        return self.figures | {
            "intervals": {name: one and [one.low, one.high] for name, one in self.intervals.items()},
            "errors": {kind: {"count": counts[kind], "map_50_lost": cost} for kind, cost in self.costs.items()},
            "thresholds": {name: asdict(one) for name, one in self.thresholds.items()},
            "confusion": {"names": [*self.marks.names, "background"], "matrix": self.confusion.tolist()},
            "calibration": asdict(self.calibration),
            "by_crowding": self.crowding,
            "by_frequency": self.frequency,
            "images": self.marks.num_images,
        }


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
