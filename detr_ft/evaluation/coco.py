"""The COCO protocol for boxes: what was found against what is there, in the twelve figures and for every class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import evaluate
import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from detr_ft.boxes import xyxy_to_xywh
from detr_ft.data.schema import class_names, detection_features
from detr_ft.structures import Detections

# Positions in the protocol's axes: ten IoU thresholds .50 .. .95, four areas, three limits of detections.
_IOU_50, _IOU_75 = 0, 5
_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}
_LIMITS = {1: 0, 10: 1, 100: 2}


def coco_metrics(truth: Dataset, detections: Sequence[Detections]) -> dict[str, Any]:
    """COCO's figures of `detections[i]` against row `i` of `truth`, a split in the schema.

    `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_1`, `mar_10`, `mar_100`, `mar_small`,
    `mar_medium`, `mar_large`: fractions of 1, or None where the truth holds nothing to count. `per_class` maps the name
    of each class with objects to its `map`, `map_50`, `mar_100` and `count`. The protocol counts the best 100
    detections of each class in each image, ignores crowds, and sorts objects by the truth's `area` (32 and 96 squared).
    """
    if len(truth) != len(detections):
        raise ValueError(f"{len(truth)} images need as many detections; got {len(detections)}")
    rows = truth.with_format(None).select_columns(["image_id", "objects"])
    return _figures(class_names(truth), list(rows["image_id"]), rows["objects"], map(_plain, detections))


class CocoMeanAveragePrecision(evaluate.Metric):
    """`coco_metrics` as an `evaluate.Metric`: give it images one after another, in batches, or all at once.

    A prediction is `{"boxes": [[x0, y0, x1, y1], ...], "scores": [...], "labels": [...]}` in pixels; a reference is a
    row's `objects` in the schema, of which `bbox` (xywh), `category`, `area` and `iscrowd` are looked at.

    Args:
        names: The names of the classes, in the order of their indices.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        super().__init__(keep_in_memory=True)

    def _info(self) -> evaluate.MetricInfo:
        boxes = List(List(Value("float64"), length=4))
        features = {
            "predictions": {"boxes": boxes, "scores": List(Value("float64")), "labels": List(Value("int64"))},
            "references": {**detection_features(self.names)["objects"], "category": List(Value("int64"))},
        }
        return evaluate.MetricInfo(
            description="Mean average precision and recall of object detection, by the protocol of COCO.",
            citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
            inputs_description=self.__class__.__doc__ or "",
            features=Features(features),
        )

    def _compute(self, predictions: Sequence[Any], references: Sequence[Any]) -> dict[str, Any]:
        found = (
            {**one, "boxes": torch.tensor(one["boxes"], dtype=torch.float64).reshape(-1, 4)} for one in predictions
        )
        return _figures(self.names, list(range(len(references))), references, map(_as_xywh, found))


def _plain(one: Detections) -> dict[str, Any]:
    return _as_xywh({"boxes": one.boxes, "scores": one.scores.tolist(), "labels": one.labels.tolist()})


def _as_xywh(one: Mapping[str, Any]) -> dict[str, Any]:
    """The same with `bbox`, xywh, computed in fp64: the protocol's own precision."""
    return {"bbox": xyxy_to_xywh(one["boxes"].double()).tolist(), "score": one["scores"], "label": one["labels"]}


def _figures(
    names: Sequence[str], image_ids: Sequence[int], truth: Iterable[Mapping[str, Any]], found: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    # Equal scores are ranked by image id. The rank of the id serves, and stays unique if an id is used twice.
    rank = (np.argsort(np.argsort(image_ids, kind="stable")) + 1).tolist()
    objects: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, there, here in zip(rank, truth, found, strict=True):
        columns = zip(there["bbox"], there["category"], there["area"], there["iscrowd"], strict=True)
        for bbox, label, area, crowd in columns:
            one = {"image_id": image, "category_id": label, "bbox": bbox, "area": area, "iscrowd": int(crowd)}
            objects.append({**one, "id": len(objects) + 1})
        for bbox, score, label in zip(here["bbox"], here["score"], here["label"], strict=True):
            one = {"image_id": image, "category_id": label, "bbox": bbox, "area": bbox[2] * bbox[3], "score": score}
            results.append({**one, "id": len(results) + 1, "iscrowd": 0})
    counts = np.bincount([one["category_id"] for one in objects if not one["iscrowd"]], minlength=len(names))
    precision, recall = _protocol(len(names), len(rank), objects, results)
    return {**_summary(precision, recall), "per_class": _per_class(names, counts.tolist(), precision, recall)}


def _protocol(
    num_classes: int, num_images: int, objects: list[dict[str, Any]], results: list[dict[str, Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision `[IoU, recall, class, area, limit]` and recall `[IoU, class, area, limit]`; -1 where nothing counts."""
    frame = {
        "images": [{"id": 1 + image} for image in range(num_images)],
        "categories": [{"id": label, "name": str(label)} for label in range(num_classes)],
    }
    # Not `loadRes`: it writes a polygon into every result, which boxes have no use for.
    protocol = COCOeval_faster(COCO({**frame, "annotations": objects}), COCO({**frame, "annotations": results}), "bbox")
    protocol.evaluate()
    protocol.accumulate()
    return np.asarray(protocol.eval["precision"]), np.asarray(protocol.eval["recall"])


def _summary(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float | None]:
    every, most = _AREAS["all"], _LIMITS[100]
    figures = {
        "map": _mean(precision[..., every, most]),
        "map_50": _mean(precision[_IOU_50, ..., every, most]),
        "map_75": _mean(precision[_IOU_75, ..., every, most]),
    }
    sizes = {size: area for size, area in _AREAS.items() if size != "all"}
    figures |= {f"map_{size}": _mean(precision[..., area, most]) for size, area in sizes.items()}
    figures |= {f"mar_{limit}": _mean(recall[..., every, index]) for limit, index in _LIMITS.items()}
    figures |= {f"mar_{size}": _mean(recall[..., area, most]) for size, area in sizes.items()}
    return figures


def _per_class(
    names: Sequence[str], counts: Sequence[int], precision: NDArray[np.float64], recall: NDArray[np.float64]
) -> dict[str, dict[str, float | int | None]]:
    every, most = _AREAS["all"], _LIMITS[100]
    return {
        name: {
            "map": _mean(precision[:, :, label, every, most]),
            "map_50": _mean(precision[_IOU_50, :, label, every, most]),
            "mar_100": _mean(recall[:, label, every, most]),
            "count": count,
        }
        for label, (name, count) in enumerate(zip(names, counts, strict=True))
        if count
    }


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean of what counts, or None (not NaN, which is no JSON) where nothing does."""
    counted = values[values > -1]
    return float(counted.mean()) if counted.size else None
