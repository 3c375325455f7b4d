"""Remarks on an evaluation: unusual statistics of the matching, likely causes of an mAP near 0."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import iou, xywh_to_xyxy, xyxy_to_cxcywh
from detr_ft.data.box_format import FORMATS, XYWH
from detr_ft.evaluation.metrics import TOO_SHORT
from detr_ft.models.predict import detect_split
from detr_ft.structures import Detections
from detr_ft.utils.formatting import percent

MAP_OF_NOTHING = 0.05  # an mAP below this is diagnosed: boxes read in a wrong frame still overlap now and then
_MAX_IMAGES = 64
_MIN_IOU = 0.5  # of a detected object, as in PASCAL VOC
_MIN_PRETRAINED_FRACTION = 0.5  # of the weights; with less a model starts almost from scratch
# Learning rates of AdamW: a transformer hardly learns, learns well, diverges.
_TOO_SLOW_RATE, _USUAL_RATE, _TOO_FAST_RATE = 2e-6, 1e-4, 1e-3
_UNSTEADY_FRACTION = 0.3  # of the targets change their query between evaluations
_MIN_OBJECTS_PER_QUERY = 3  # of a sample in which an unused query is unusual

_OTHER_FORMATS = [format for format in FORMATS if format.unit == "pixels" and format != XYWH]
_ROWS_FIRST = "rows before columns (y_min, x_min, height, width)"
_READINGS = (*map(str, _OTHER_FORMATS), _ROWS_FIRST)


def remarks(row: Mapping[str, Any], changes: Mapping[str, float], queries: int, fraction: float) -> list[str]:
    """Return remarks on a row of the log and on changes of the matching, after a fraction of the run."""
    shares = {name: value for name, value in row.items() if name.startswith("gradient_share_")}
    sentences = [
        _left_out(row.get("left_out", 0.0)),
        _dominant_loss(shares),
        _no_object_everywhere(row),
        _unsteady(changes.get("changed_since_last", 0.0), fraction),
        _unused_queries(changes, queries),
    ]
    return [sentence for sentence in sentences if sentence]


def _left_out(fraction: float) -> str:
    return f"{percent(fraction)} of the objects have no query: increase model.num_queries" if fraction else ""


def _dominant_loss(shares: Mapping[str, float]) -> str:
    name, share = max(shares.items(), key=lambda item: item[1], default=("", 0.0))
    if len(shares) < 2 or share < 0.95:
        return ""
    return (
        f"{name.removeprefix('gradient_share_')} contributes {percent(share)} of the gradient; raise the weights of the "
        "other losses"
    )


def _no_object_everywhere(row: Mapping[str, Any]) -> str:
    if row.get("no_object_share", 0.0) < 0.999 or row.get("matched_iou", 0.0) < 0.5:
        return ""
    return "boxes fit, but every query predicts no-object: continue training, or lower eos_coef of the class loss"


def _unsteady(changed: float, fraction: float) -> str:
    if changed < _UNSTEADY_FRACTION or fraction < 0.5:
        return ""
    return f"{percent(changed)} of the objects changed their query since the last evaluation: the matching is unstable"


def _unused_queries(changes: Mapping[str, float], queries: int) -> str:
    unused, objects = changes.get("queries_never_used", 0.0), int(changes.get("objects_looked_at", 0))
    if unused < 0.5 or objects < _MIN_OBJECTS_PER_QUERY * queries:
        return ""
    return f"{percent(unused)} of the {queries} queries match none of {objects} objects: fewer suffice"


@dataclass
class Overlaps:
    """The likeliest detections of some images, compared with the annotations in pixels."""

    ious: list[float] = field(default_factory=list)  # of each object, with the best detection of any class
    scores: list[float] = field(default_factory=list)  # the highest of each image
    classes: Counter[tuple[int, int]] = field(default_factory=Counter)  # of detected objects: annotated, predicted
    ious_by_reading: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _READINGS})

    @property
    def mean_iou(self) -> float:
        """The mean IoU; 0 without objects."""
        return fmean(self.ious) if self.ious else 0.0

    @property
    def accuracy(self) -> float:
        """The fraction of detected objects with the right class; 1 if none is detected."""
        total = sum(self.classes.values())
        return sum(count for (true, predicted), count in self.classes.items() if true == predicted) / total if total else 1.0  # fmt: skip


@dataclass(frozen=True)
class History:
    """The training so far."""

    losses: Sequence[float]  # of the rows of the log
    steps: int
    rate: float  # the highest learning rate of the schedule
    pretrained_fraction: float | None  # of the weights, from a checkpoint; None if unknown
    no_object: float | None  # the fraction of queries that predict no-object


def measure_overlaps(model: Any, processor: Any, split: Dataset, batch_size: int) -> Overlaps:
    """Detect in up to 64 images of a split, evenly spread, and compare with the annotations."""
    rows = torch.linspace(0, len(split) - 1, min(_MAX_IMAGES, len(split))).long().tolist()
    sample = split.select(rows)
    overlaps = Overlaps()
    for detections, objects in zip(detect_split(model, processor, sample, batch_size), sample["objects"], strict=True):
        _add(overlaps, detections, objects)
    return overlaps


def _add(overlaps: Overlaps, detections: Detections, objects: Mapping[str, Any]) -> None:
    indices = [index for index, crowd in enumerate(objects["iscrowd"]) if not crowd]
    overlaps.scores += detections.scores[:1].tolist()
    if not indices or not len(detections.scores):
        return
    truth = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)[indices]
    likeliest = slice(2 * len(indices))  # a hundred boxes overlap everything; twice the number of objects do not
    boxes, labels = detections.boxes[likeliest].cpu(), detections.labels[likeliest].tolist()
    best, positions = _ious(xywh_to_xyxy(truth), boxes).max(1)
    overlaps.ious += best.tolist()
    for index, value, position in zip(indices, best.tolist(), positions.tolist(), strict=True):
        if value >= _MIN_IOU:
            overlaps.classes[objects["category"][index], labels[position]] += 1
    for name, xywh in _read_otherwise(truth).items():
        overlaps.ious_by_reading[name] += _ious(xywh_to_xyxy(xywh), boxes).max(1).values.tolist()


def _read_otherwise(boxes: Tensor) -> dict[str, Tensor]:
    """Return boxes `[T, 4]` as xywh, as if their numbers were in each other format of pixels."""
    sizes = np.ones((len(boxes), 2))  # used by fractions only
    readings = {str(format): torch.from_numpy(format.to_xywh(boxes.numpy(), sizes)) for format in _OTHER_FORMATS}
    return readings | {_ROWS_FIRST: boxes[:, [1, 0, 3, 2]]}


def _ious(truth: Tensor, boxes: Tensor) -> Tensor:
    return iou(xyxy_to_cxcywh(truth)[:, None], xyxy_to_cxcywh(boxes)[None])


def diagnose(train: Overlaps, validation: Overlaps, names: Sequence[str], history: History) -> list[str]:
    """Return the likely causes of an mAP near 0, the likeliest first, each with its remedy; at least one."""
    scores = _of_scores(train, history)
    if train.mean_iou >= _MIN_IOU and train.accuracy >= _MIN_IOU:
        return scores + _of_the_split(train, validation, names)
    return [*scores, *_of_the_weights(history), _of_the_rate(history)]


def _of_the_split(train: Overlaps, validation: Overlaps, names: Sequence[str]) -> list[str]:
    """Return the cause where objects of training images are detected and others are not."""
    if validation.mean_iou >= _MIN_IOU and validation.accuracy < _MIN_IOU:
        confusions = {pair: count for pair, count in validation.classes.items() if pair[0] != pair[1]}
        (true, predicted), count = max(confusions.items(), key=lambda item: item[1])
        of_class = sum(number for (label, _), number in validation.classes.items() if label == true)
        return [
            f"label map: boxes of the validation split are right and their classes are not: {count} of {of_class} {names[true]} "
            f"are detected as {names[predicted]}. Check that both splits have the same order of classes and the same first number"
        ]
    if validation.mean_iou < 0.7 * train.mean_iou:
        means = {name: fmean(values or [0.0]) for name, values in validation.ious_by_reading.items()}
        name, best = max(means.items(), key=lambda item: item[1])
        finding = f"box frame: objects of training images are detected (IoU {train.mean_iou:.2f}), of the validation split not ({validation.mean_iou:.2f})"
        if best >= max(_MIN_IOU, 1.3 * validation.mean_iou):
            return [
                f"{finding}, unless its boxes are {name}: then IoU is {best:.2f}. Set data.box_format, or repair them"
            ]
        return [f"{finding}: its boxes or its images differ in kind. Inspect them: detr-ft doctor"]
    return [
        f"the model detects boxes (IoU {validation.mean_iou:.2f} on the validation split), with the right class for "
        f"{percent(validation.accuracy)} of them, but false detections have higher scores: train longer"
    ]


def _of_the_weights(history: History) -> list[str]:
    fraction = history.pretrained_fraction
    if fraction is None or fraction >= _MIN_PRETRAINED_FRACTION:
        return []
    return [
        f"weights: {percent(fraction)} of the model came from a checkpoint. A DETR from random weights detects nothing for "
        f"thousands of steps (so far: {history.steps}); start from a checkpoint (model.checkpoint), or train much longer"
    ]


def _of_the_rate(history: History) -> str:
    """Return the cause that losses and learning rate show together."""
    losses, rate = history.losses, history.rate
    part = max(1, len(losses) // 4)
    if len(losses) < 4:
        return f"{TOO_SHORT}: {history.steps} steps are too few for a diagnosis; train longer (train.num_train_epochs)"
    first, last = fmean(losses[:part]), fmean(losses[-part:])
    change = f"the loss went from {first:.3g} to {last:.3g} in {history.steps} steps"
    if last > 0.8 * first and rate >= _TOO_FAST_RATE:
        return f"learning rate: {change} at {rate:.3g}, which is too high for a transformer; try {_USUAL_RATE:g}"
    if last > 0.8 * first and rate <= _TOO_SLOW_RATE:
        return f"learning rate: {change} at {rate:.3g}, which is too low to learn; try {_USUAL_RATE:g}"
    if last > 0.95 * first:
        return f"{change}: nothing is learned. Test with detr-ft check RECIPE --probe if the model can learn a single batch"
    return f"{TOO_SHORT}: {change} and is falling; train longer (train.num_train_epochs)"


def _of_scores(train: Overlaps, history: History) -> list[str]:
    highest = fmean(train.scores) if train.scores else 0.0
    if history.no_object is None or history.no_object < 0.99 or train.mean_iou < _MIN_IOU:
        return []
    return [
        f"thresholds: boxes fit (IoU {train.mean_iou:.2f} on training images) but {percent(history.no_object)} of the queries "
        f"predict no-object, and the best score of an image is {highest:.2f}: nothing is above a threshold of 0.5. Lower "
        "eos_coef of the class loss"
    ]
