"""COCO's metrics as an `evaluate.Metric`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Features, List, Value

from detr_ft.data.schema import detection_features
from detr_ft.evaluation.coco import detection_arrays, ground_truth_arrays, metrics_of_matches
from detr_ft.evaluation.detection_matching import match_detections
from detr_ft.structures import Detections


class CocoMeanAveragePrecision(evaluate.Metric):
    """`coco_metrics` as an `evaluate.Metric`: add images one after another, in batches, or all at once.

    A prediction is `{"boxes": [[x0, y0, x1, y1], ...], "scores": [...], "labels": [...]}` in pixels; a reference is a
    row's `objects` in the schema, of which `bbox` (xywh), `category`, `area` and `iscrowd` are read.

    Args:
        names: The names of the classes, in the order of their indices; by default, their numbers.

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
        predicted = [
            Detections(
                torch.tensor(image["boxes"], dtype=torch.float64).reshape(-1, 4),
                torch.tensor(image["scores"], dtype=torch.float64),
                torch.tensor(image["labels"], dtype=torch.long),
            )
            for image in predictions
        ]
        objects, detections = ground_truth_arrays(references, images), detection_arrays(predicted, images)
        classes = 1 + max(objects.label.max(initial=-1), detections.label.max(initial=-1))
        names = self.names or [str(label) for label in range(classes)]
        if classes > len(names):
            raise ValueError(f"names: there must be one for each label, got label {classes - 1} and {', '.join(names)}")
        return metrics_of_matches(match_detections(names, len(images), objects, detections))
