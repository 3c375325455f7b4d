"""A split and what was found in it, as the tables that are marked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from detr_ft.boxes import xyxy_to_xywh
from detr_ft.data.schema import class_names
from detr_ft.evaluation.detection_matching import DetectionArrays, DetectionMatches, GroundTruthArrays, mark
from detr_ft.structures import Detections


def mark_split(truth: Dataset, detections: Sequence[Detections]) -> DetectionMatches:
    """Mark `detections[i]`, xyxy in pixels, against row `i` of a split in the schema.

    Equal scores rank by the images' ids, as in COCO's own code. Raises ValueError where the numbers of images differ.
    """
    if len(truth) != len(detections):
        raise ValueError(f"{len(truth)} images need as many detections; got {len(detections)}")
    rows = truth.with_format(None)
    # Ranks serve for ids, and stay apart where an id is used twice.
    images = np.argsort(np.argsort(np.asarray(rows["image_id"]), kind="stable"))
    objects = (row["objects"] for row in rows.select_columns(["objects"]))
    return mark(class_names(truth), len(images), objects_of(objects, images), found_of(detections, images))


def objects_of(rows: Iterable[Mapping[str, Any]], images: np.ndarray[Any, np.dtype[np.int64]]) -> GroundTruthArrays:
    """The `objects` of rows in the schema, those of the i-th row under the number `images[i]`."""
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


def found_of(detections: Sequence[Detections], images: np.ndarray[Any, np.dtype[np.int64]]) -> DetectionArrays:
    """The detections of the i-th image under the number `images[i]`. Widths are computed in fp64, the protocol's own."""
    empty = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    boxes = torch.cat([empty.boxes.double(), *(one.boxes.double().reshape(-1, 4) for one in detections)])
    return DetectionArrays(
        np.repeat(images, [len(one.scores) for one in detections]),
        torch.cat([empty.labels, *(one.labels for one in detections)]).numpy().astype(np.int64),
        xyxy_to_xywh(boxes).numpy(),
        torch.cat([empty.scores.double(), *(one.scores.double() for one in detections)]).numpy(),
    )
