"""Compare models on the same images, and test whether they differ by more than noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from detr_ft.data.schema import class_names
from detr_ft.data.sources.registry import UnlabeledPolicy
from detr_ft.errors import InputError
from detr_ft.evaluation.bootstrap import Difference, differences, intervals
from detr_ft.evaluation.coco import match_split, metrics_of_matches
from detr_ft.evaluation.detection_matching import DetectionMatches
from detr_ft.evaluation.detections import align_classes, relabel
from detr_ft.evaluation.metrics import COCO_METRICS, Interval
from detr_ft.inference import Detector
from detr_ft.models.predict import detect_split
from detr_ft.run_directory import PREDICTIONS
from detr_ft.structures import Detections
from detr_ft.utils.arguments import check_list_of_texts, check_whole_number, model_text
from detr_ft.utils.progress import status
from detr_ft.utils.threads import use_free_cores
from detr_ft.workflows.predictions_file import read_predictions
from detr_ft.workflows.splits import DataLike, DataOptions, ModelLike, PathLike, split_of


@dataclass(frozen=True)
class ComparedModel:
    """COCO's metrics of a model with 95% intervals, and its differences to the first model.

    Differences have 99% intervals. `differences` are None for the first model; an interval or a difference is None if
    there is too little to compute it.
    """

    name: str
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Interval | None]
    differences: Mapping[str, Difference | None] | None

    def as_json(self) -> dict[str, Any]:
        """Return the values as JSON has them."""
        return {
            "name": self.name,
            "figures": dict(self.metrics),
            "intervals": {name: range and [range.low, range.high] for name, range in self.intervals.items()},
            "differences": {
                name: difference
                and {
                    "value": difference.value,
                    "interval": [difference.interval.low, difference.interval.high],
                    "real": difference.real,
                }
                for name, difference in (self.differences or {}).items()
            },
        }


@dataclass(frozen=True)
class CompareOutcome:
    """Several models on the same images; the first is the baseline."""

    models: tuple[ComparedModel, ...]

    @property
    def differences(self) -> list[Mapping[str, Difference | None]]:
        """The differences to the baseline by metric, for each of the other models."""
        return [model.differences for model in self.models if model.differences is not None]


def compare(
    models: Sequence[ModelLike],
    data: DataLike | None = None,
    *,
    split: str | None = None,
    batch_size: int = 8,
    box_format: str | None = None,
    images: PathLike | None = None,
    unlabeled: UnlabeledPolicy | None = None,
) -> CompareOutcome:
    """Compare models on a split, by default on the validation images of their runs.

    Those must be the same for all runs. The detections that runs saved are used again if no data are given.
    `box_format`, `images` and `unlabeled` are as for `load_data`. Raises InputError for fewer than two models, and for runs with
    different validation images.
    """
    check_list_of_texts("models", models, "compare([MODEL, MODEL])")
    check_whole_number("batch_size", batch_size, 1)
    names = [model_text(model, f"models[{position}]") for position, model in enumerate(models)]
    if len(names) < 2:
        raise InputError("compare: there must be two models or more. Give another one")
    options = DataOptions(box_format, images, unlabeled)
    chosen = split_of(names[0], data, split, options)
    if data is None:
        for other in names[1:]:
            _check_same_images(names[0], chosen, other, split_of(other, None, split, options))
    saved = data is None and split in (None, "validation")
    matches = [_matches(name, chosen, batch_size, saved) for name in names]
    return CompareOutcome(
        tuple(
            ComparedModel(name, _metrics(own), intervals(own), None if index == 0 else differences(matches[0], own))
            for index, (name, own) in enumerate(zip(names, matches, strict=True))
        )
    )


def _metrics(matches: DetectionMatches) -> dict[str, float | None]:
    metrics = metrics_of_matches(matches)
    return {name: metrics[name] for name in COCO_METRICS}


def _matches(model: str, split: Dataset, batch_size: int, saved: bool) -> DetectionMatches:
    file = Path(model) / PREDICTIONS
    if saved and file.is_file():
        return match_split(split, read_predictions(file, split, {}))
    use_free_cores()
    detector = Detector.load_any(model)
    order = align_classes(detector.names, class_names(split))
    with status(f"{model}: evaluating {len(split)} images"):
        detections: list[Detections] = detect_split(detector.model, detector.processor, split, batch_size)
    return match_split(split, detections if order is None else [relabel(image, order) for image in detections])


def _check_same_images(first: str, images: Dataset, second: str, others: Dataset) -> None:
    same = (
        class_names(images) == class_names(others)
        and np.array_equal(images["image_id"][:], others["image_id"][:])
        and images["objects"][:] == others["objects"][:]
    )
    if not same:
        raise InputError(
            f"{first} and {second} have different validation images. Give images for both with data (--data)"
        )
