"""What the command `compare` does: models side by side on the same images, and whether they differ by more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from detr_ft.data import class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.arrays import mark_split
from detr_ft.evaluation.coco import figures_of
from detr_ft.evaluation.detection_matching import DetectionMatches
from detr_ft.evaluation.intervals import Difference, differences, intervals
from detr_ft.evaluation.label_alignment import renamed, same_classes
from detr_ft.evaluation.metrics import COCO_METRICS, Interval
from detr_ft.inference import Detector
from detr_ft.models.predict import detect_split
from detr_ft.run_directory import PREDICTIONS
from detr_ft.structures import Detections
from detr_ft.utils.formatting import metric
from detr_ft.utils.progress import console
from detr_ft.workflows.predictions_file import read_predictions
from detr_ft.workflows.splits import split_of


@dataclass(frozen=True)
class Comparison:
    """A model's figures with their 95 % intervals, and how much more it has than the first, with 99 % intervals."""

    name: str
    figures: dict[str, Any]
    intervals: dict[str, Interval | None]
    differences: dict[str, Difference | None] | None  # of the first there are none

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        found = self.differences or {}
        return {
            "name": self.name,
            "figures": {name: self.figures[name] for name in COCO_METRICS},
            "intervals": {name: one and [one.low, one.high] for name, one in self.intervals.items()},
            "differences": {
                name: one and {"value": one.value, "interval": [one.interval.low, one.interval.high], "real": one.real}
                for name, one in found.items()
            },
        }


def compare(models: Sequence[str], data: str | None, split: str | None, batch_size: int) -> list[Comparison]:
    """Compare models on a split, by default on what the run of the first held out, which the others then must have too.

    Detections that a run has kept are used again. Raises InputError for fewer than two models, and for other images.
    """
    if len(models) < 2:
        raise InputError("give two models or more to compare")
    chosen = split_of(models[0], data, split)
    if data is None:
        for other in models[1:]:
            _refuse_others(models[0], chosen, other, split_of(other, None, split))
    kept = data is None and split in (None, "validation")
    marks = [_marks(model, chosen, batch_size, kept) for model in models]
    return [
        Comparison(model, figures_of(one), intervals(one), None if place == 0 else differences(marks[0], one))
        for place, (model, one) in enumerate(zip(models, marks, strict=True))
    ]


def comparison_table(compared: Sequence[Comparison], figure: str = "map") -> str:
    """The models with their figure, and what is to be said of the difference to the first, as plain text."""
    names = [one.name for one in compared]
    width = max(5, *map(len, names))
    lines = [f"{'model':<{width}}  {'mAP':>6}  95 % interval   more than the first"]
    for one in compared:
        interval, value = one.intervals[figure], one.figures[figure]
        known = f"{metric(value):>6}"
        between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-" * 14
        lines.append(f"{one.name:<{width}}  {known}  {between}  {_words(one, figure)}".rstrip())
    return "\n".join(lines)


def _words(one: Comparison, figure: str) -> str:
    if one.differences is None:
        return ""
    found = one.differences[figure]
    if found is None:
        return "  there is too little to compare"
    verdict = "more than noise" if found.real else "no more than noise"
    return f"  {found.value:+.3f} ({found.interval.low:+.3f} to {found.interval.high:+.3f}, 99 %): {verdict}"


def _marks(model: str, split: Dataset, batch_size: int, kept: bool) -> DetectionMatches:
    file = Path(model) / PREDICTIONS
    if kept and file.is_file():
        return mark_split(split, read_predictions(file, split, {}))
    detector = Detector.load_any(model)
    order = same_classes(detector.names, class_names(split))
    with console.status(f"{model}: looking at {len(split)} images"):
        found: list[Detections] = detect_split(detector.model, detector.processor, split, batch_size)
    return mark_split(split, found if order is None else [renamed(one, order) for one in found])


def _refuse_others(first: str, images: Dataset, second: str, others: Dataset) -> None:
    same = (
        class_names(images) == class_names(others)
        and np.array_equal(images["image_id"][:], others["image_id"][:])
        and images["objects"][:] == others["objects"][:]
    )
    if not same:
        raise InputError(
            f"{first} and {second} held out other images, so their figures can't be compared; give images to both: --data"
        )
