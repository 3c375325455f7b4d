"""The COCO protocol for boxes: its twelve metrics, and those of every class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset, Features, List, Value

from detr_ft.boxes import xyxy_to_xywh
from detr_ft.data.schema import class_names, detection_features
from detr_ft.evaluation.detection_matching import (
    AREAS,
    MAX_DETECTIONS,
    DetectionArrays,
    DetectionMatches,
    Floats,
    GroundTruthArrays,
    Ints,
    match_detections,
)
from detr_ft.evaluation.precision_recall import precision_recall, summarize
from detr_ft.structures import Detections


def coco_metrics(truth: Dataset, detections: Sequence[Detections]) -> dict[str, Any]:
    """Return COCO's metrics of `detections[i]` (xyxy, pixels) on row `i` of a split in the schema.

    `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_1`, `mar_10`, `mar_100`, `mar_small`,
    `mar_medium`, `mar_large`: fractions of 1, or None if there are no objects to count. `per_class` maps the name of each
    class with objects to its `map`, `map_50`, `mar_100` and `count`. The protocol counts the best 100 detections of each
    class in each image, ignores crowds, and sorts objects by the truth's `area` (32 and 96 squared).
    """
    return metrics_of_matches(match_split(truth, detections))


def metrics_of_matches(matches: DetectionMatches) -> dict[str, Any]:
    """Return COCO's metrics as `coco_metrics` does."""
    tables = {area: precision_recall(matches, area) for area in AREAS}
    counts = matches.objects_per_class()
    whole = tables["all"]
    return summarize(tables, _mean) | {
        "per_class": {
            name: {
                "map": _mean(whole.precision[..., label]),
                "map_50": _mean(whole.precision[0, :, label]),
                "mar_100": _mean(whole.recall[MAX_DETECTIONS][:, label]),
                "count": int(counts[label]),
            }
            for label, name in enumerate(matches.names)
            if counts[label]
        }
    }


def _mean(values: Floats) -> float | None:
    """Return the mean of the values that count, or None (NaN is no JSON) if there are none."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None


def match_split(truth: Dataset, detections: Sequence[Detections]) -> DetectionMatches:
    """Match `detections[i]`, xyxy in pixels, to the objects of row `i` of a split in the schema.

    Equal scores rank by the ids of the images, as in COCO's own code. Raises ValueError if the numbers of images differ.
    """
    if len(truth) != len(detections):
        raise ValueError(f"{len(truth)} images need as many detections; got {len(detections)}")
    rows = truth.with_format(None)
    # Ranks instead of ids, which stay distinct if an id occurs twice.
    images = np.argsort(np.argsort(np.asarray(rows["image_id"]), kind="stable"))
    objects = (row["objects"] for row in rows.select_columns(["objects"]))
    return match_detections(
        class_names(truth), len(images), ground_truth_arrays(objects, images), detection_arrays(detections, images)
    )


def ground_truth_arrays(rows: Iterable[Mapping[str, Any]], images: Ints) -> GroundTruthArrays:
    """Return the `objects` of rows in the schema, those of the i-th row under the number `images[i]`."""
    counts: list[int] = []
    boxes: list[list[float]] = []
    labels: list[int] = []
    areas: list[float] = []
    crowds: list[bool] = []
    for row in rows:
        counts.append(len(row["category"]))
        boxes += row["bbox"]
        labels += row["category"]
        areas += row["area"]
        crowds += row["iscrowd"]
    return GroundTruthArrays(
        np.repeat(images, counts),
        np.array(labels, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(areas, np.float64),
        np.array(crowds, bool),
    )


def detection_arrays(detections: Sequence[Detections], images: Ints) -> DetectionArrays:
    """Return the detections of the i-th image under the number `images[i]`.

    Widths are computed in fp64, as in the protocol.
    """
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    boxes = torch.cat([empty.boxes.double(), *(image.boxes.double().reshape(-1, 4) for image in detections)])
    return DetectionArrays(
        np.repeat(images, [len(image.scores) for image in detections]),
        torch.cat([empty.labels, *(image.labels for image in detections)]).numpy().astype(np.int64),
        xyxy_to_xywh(boxes).numpy(),
        torch.cat([empty.scores.double(), *(image.scores.double() for image in detections)]).numpy(),
    )


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
