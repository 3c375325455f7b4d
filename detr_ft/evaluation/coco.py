"""The COCO protocol for boxes: what was found against what is there, in the twelve figures and for every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from detr_ft.data.schema import detection_features
from detr_ft.evaluation.arrays import found_of, mark_split, objects_of
from detr_ft.evaluation.coco_summary import summarise
from detr_ft.evaluation.detection_matching import AREAS, MOST, DetectionMatches, Floats, mark
from detr_ft.evaluation.precision_recall import curves_of
from detr_ft.structures import Detections


def coco_metrics(truth: Dataset, detections: Sequence[Detections]) -> dict[str, Any]:
    """COCO's figures of `detections[i]` against row `i` of `truth`, a split in the schema.

    `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_1`, `mar_10`, `mar_100`, `mar_small`,
    `mar_medium`, `mar_large`: fractions of 1, or None where the truth holds nothing to count. `per_class` maps the name
    of each class with objects to its `map`, `map_50`, `mar_100` and `count`. The protocol counts the best 100
    detections of each class in each image, ignores crowds, and sorts objects by the truth's `area` (32 and 96 squared).
    """
    return figures_of(mark_split(truth, detections))


def figures_of(marks: DetectionMatches) -> dict[str, Any]:
    """COCO's figures of a marked set, as `coco_metrics` gives them."""
    tables = {area: curves_of(marks, area) for area in AREAS}
    counts = np.bincount(marks.objects.label[marks.counted("all")], minlength=len(marks.names))
    whole = tables["all"]
    return summarise(tables, _mean) | {
        "per_class": {
            name: {
                "map": _mean(whole.precision[..., label]),
                "map_50": _mean(whole.precision[0, :, label]),
                "mar_100": _mean(whole.recall[MOST][:, label]),
                "count": int(counts[label]),
            }
            for label, name in enumerate(marks.names)
            if counts[label]
        }
    }


class CocoMeanAveragePrecision(evaluate.Metric):
    """`coco_metrics` as an `evaluate.Metric`: give it images one after another, in batches, or all at once.

    A prediction is `{"boxes": [[x0, y0, x1, y1], ...], "scores": [...], "labels": [...]}` in pixels; a reference is a
    row's `objects` in the schema, of which `bbox` (xywh), `category`, `area` and `iscrowd` are looked at.

    Args:
        names: The names of the classes, in the order of their indices; left out, they are named by their numbers.

    The other parameters are those with which `evaluate.load` makes a metric.
    """

    def __init__(
        self,
        names: Sequence[str] | None = None,
        config_name: str | None = None,
        keep_in_memory: bool = True,
        cache_dir: str | None = None,
        num_process: int = 1,
        process_id: int = 0,
        experiment_id: str | None = None,
        hash: str | None = None,
    ) -> None:
        self.names = None if names is None else list(names)
        super().__init__(
            config_name=config_name,
            keep_in_memory=keep_in_memory,
            cache_dir=cache_dir,
            num_process=num_process,
            process_id=process_id,
            experiment_id=experiment_id,
            hash=hash,
        )

    def _info(self) -> evaluate.MetricInfo:
        boxes = List(List(Value("float64"), length=4))
        features = {
            "predictions": {"boxes": boxes, "scores": List(Value("float64")), "labels": List(Value("int64"))},
            "references": {**detection_features(["any"])["objects"], "category": List(Value("int64"))},
        }
        return evaluate.MetricInfo(
            description="Mean average precision and recall of object detection, by the protocol of COCO.",
            citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
            inputs_description=self.__class__.__doc__ or "",
            features=Features(features),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        images = np.arange(len(references))
        found = [
            Detections(
                torch.tensor(one["boxes"], dtype=torch.float64).reshape(-1, 4),
                torch.tensor(one["scores"], dtype=torch.float64),
                torch.tensor(one["labels"], dtype=torch.long),
            )
            for one in predictions
        ]
        objects, detections = objects_of(references, images), found_of(found, images)
        classes = 1 + max(objects.label.max(initial=-1), detections.label.max(initial=-1))
        names = self.names or [str(label) for label in range(classes)]
        if classes > len(names):
            raise ValueError(f"a label is {classes - 1}, and there are {len(names)} classes: {', '.join(names)}")
        return figures_of(mark(names, len(images), objects, detections))


def _mean(values: Floats) -> float | None:
    """The mean of what counts, or None (not NaN, which is no JSON) where nothing does."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None
