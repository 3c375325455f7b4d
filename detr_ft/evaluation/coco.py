"""The COCO protocol for boxes: precision and recall of every class, and the twelve metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from datasets import Dataset

from detr_ft.boxes import xyxy_to_xywh
from detr_ft.data.schema import class_names
from detr_ft.errors import InputError
from detr_ft.evaluation.detection_matching import (
    AREAS,
    MAX_DETECTIONS,
    THRESHOLDS,
    DetectionArrays,
    DetectionMatches,
    Floats,
    GroundTruthArrays,
    Ints,
    match_detections,
)
from detr_ft.evaluation.detections import align_classes, relabel
from detr_ft.structures import Detections

LIMITS = (1, 10, MAX_DETECTIONS)  # detections of a class in an image
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
Value = TypeVar("Value")


def coco_metrics(truth: Dataset, detections: Sequence[Detections]) -> dict[str, Any]:
    """Return COCO's metrics of `detections[i]` (xyxy, pixels) on row `i` of a split in the schema.

    `map`, `map_50`, `map_75`, `map_small`, `map_medium`, `map_large`, `mar_1`, `mar_10`, `mar_100`, `mar_small`,
    `mar_medium`, `mar_large`: fractions of 1, or None if there are no objects to count. `per_class` maps the name of each
    class with objects to its `map`, `map_50`, `mar_100` and `count`. The protocol counts the best 100 detections of each
    class in each image, ignores crowds, and sorts objects by the truth's `area` (32 and 96 squared). Detections with names
    are compared by the names of their classes. Raises InputError for classes that do not fit, and for another number of images.
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


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Precision `[T, ...]` and, by limit, recall `[T, ...]`: ten thresholds, then classes."""

    precision: Floats
    recall: Mapping[int, Floats]


def precision_recall(matches: DetectionMatches, area: str) -> PrecisionRecall:
    """Return precision `[T, 101, K]` at each of 101 recalls, and recall `[T, K]`.

    `area` is one of `AREAS`. Classes without objects have -1.
    """
    correct, counts = matches.outcomes(area)
    objects = matches.objects_per_class(area)
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(matches.names)), -1.0)
    recall = {limit: np.full((len(THRESHOLDS), len(matches.names)), -1.0) for limit in LIMITS}
    for label, rows in enumerate(matches.class_slices):
        if not objects[label]:
            continue
        hits, counted = (np.cumsum(column[:, rows], axis=1, dtype=np.float64) for column in (correct, counts))
        precision[:, :, label] = interpolated(hits, counted, objects[label])
        for limit in LIMITS:
            within = matches.rank[rows] < limit
            recall[limit][:, label] = correct[:, rows][:, within].sum(1) / objects[label]
    return PrecisionRecall(precision, recall)


def interpolated(hits: Floats, counted: Floats, objects: int) -> Floats:
    """`[T, 101]`: the best precision at each recall or beyond, from running sums `[T, D]`.

    It is 0 for recalls that are not reached.
    """
    precision = hits / (counted + np.spacing(1))  # as in pycocotools: rows that don't count may come first
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    first = np.stack([np.searchsorted(row, RECALLS, side="left") for row in hits / objects])
    return np.take_along_axis(envelope, first, axis=1)


def summarize(tables: Mapping[str, PrecisionRecall], mean: Callable[[Floats], Value]) -> dict[str, Value]:
    """Return `COCO_METRICS` by name, from a table for each of `AREAS`, by a mean of their values."""
    whole, sizes = tables["all"], [area for area in AREAS if area != "all"]
    at_75 = int(np.argmin(np.abs(THRESHOLDS - 0.75)))
    metrics = {
        "map": mean(whole.precision),
        "map_50": mean(whole.precision[:1]),
        "map_75": mean(whole.precision[at_75 : at_75 + 1]),
    }
    metrics |= {f"map_{size}": mean(tables[size].precision) for size in sizes}
    metrics |= {f"mar_{limit}": mean(whole.recall[limit]) for limit in LIMITS}
    return metrics | {f"mar_{size}": mean(tables[size].recall[MAX_DETECTIONS]) for size in sizes}


def match_split(truth: Dataset, detections: Sequence[Detections]) -> DetectionMatches:
    """Match `detections[i]`, xyxy in pixels, to the objects of row `i` of a split in the schema.

    Equal scores rank by the ids of the images, as in COCO's own code. Raises InputError as `coco_metrics` does.
    """
    if not isinstance(truth, Dataset):
        hint = f", for example data[{next(iter(truth))!r}]" if isinstance(truth, Mapping) and truth else ""
        raise InputError(f"truth: must be a split of the data{hint}, got {type(truth).__name__}")
    if len(truth) != len(detections):
        raise InputError(f"{len(truth)} images need as many detections; got {len(detections)}")
    detections = _with_classes_of(class_names(truth), detections)
    rows = truth.with_format(None)
    # Ranks instead of ids, which stay distinct if an id occurs twice.
    images = np.argsort(np.argsort(np.asarray(rows["image_id"]), kind="stable"))
    objects = (row["objects"] for row in rows.select_columns(["objects"]))
    return match_detections(
        class_names(truth), len(images), ground_truth_arrays(objects, images), detection_arrays(detections, images)
    )


def _with_classes_of(names: Sequence[str], detections: Sequence[Detections]) -> list[Detections]:
    """Return the detections under the indices of these classes, by name if they have names.

    Raises InputError for labels beyond the classes.
    """
    orders: dict[tuple[str, ...], list[int] | None] = {}
    aligned: list[Detections] = []
    for number, image in enumerate(detections):
        if not isinstance(image, Detections):
            raise InputError(f"detections[{number}]: must be Detections of an image, got {type(image).__name__}")
        theirs = tuple(image.names)
        if theirs and theirs not in orders:
            orders[theirs] = align_classes(theirs, names)
        order = orders.get(theirs)
        image = image if order is None else relabel(image, order)
        if len(image) and not 0 <= int(image.labels.min()) <= int(image.labels.max()) < len(names):
            label = int(image.labels.max() if image.labels.min() >= 0 else image.labels.min())
            raise InputError(
                f"detections[{number}]: label {label} is beyond the {len(names)} classes of the data: {', '.join(names)}. "
                "Give the detections the names of their classes"
            )
        aligned.append(image)
    return aligned


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
