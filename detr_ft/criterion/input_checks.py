"""Checks of predictions and targets without an extra synchronization of the device."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from detr_ft.errors import CriterionError as CriterionError
from detr_ft.errors import TargetError as TargetError
from detr_ft.structures import Predictions, Targets

_TOLERANCE = 0.02  # in fractions of the image: annotation tools round, so that a box may exceed it by a pixel


def check_inputs(predictions: object, targets: object) -> None:
    """Raise CriterionError unless both are what a criterion takes, of as many images and on one device."""
    if not isinstance(predictions, Predictions):
        raise CriterionError(f"predictions: must be detr_ft.structures.Predictions, got {type(predictions).__name__}")
    if not isinstance(targets, Targets):
        raise TargetError(
            f"targets: must be detr_ft.structures.Targets, got {type(targets).__name__}. "
            "Convert labels with Targets.from_labels(labels, device)"
        )
    if len(targets.counts) != predictions.num_images:
        raise TargetError(
            f"targets: must have as many images as the predictions, {predictions.num_images}, got {len(targets.counts)}"
        )
    if targets.boxes.device != predictions.device:
        raise TargetError(
            f"targets: are on {targets.boxes.device}, the predictions on {predictions.device}. "
            f"Move them: targets.to(predictions.device)"
        )


def defect_signs(predictions: Predictions, targets: Targets) -> list[Tensor]:
    """Flat tensors that reveal any defect and travel to the host with the costs: `[4P]`, `[P]`, `[1]`.

    They are the boxes and labels of the targets, and the sum of all logits and boxes, which is not finite if a value is
    not.
    """
    total = predictions.logits.sum(dtype=torch.float32) + predictions.boxes.sum(dtype=torch.float32)
    return [targets.boxes.flatten().float(), targets.labels, total[None]]


def raise_for_defects(signs: np.ndarray, predictions: Predictions, targets: Targets) -> None:
    """Raise CriterionError with image, layer and likely cause of a defect in concatenated `defect_signs`."""
    total = len(targets.labels)
    if total:
        _check_labels(signs[4 * total : -1], predictions, targets)
        _check_boxes(signs[: 4 * total].reshape(-1, 4), targets)
    if not math.isfinite(signs[-1]):
        _check_finite("logits", predictions.logits)
        _check_finite("boxes", predictions.boxes)


def _check_labels(labels: np.ndarray, predictions: Predictions, targets: Targets) -> None:
    classes = predictions.num_classes
    if labels.min() < 0 or labels.max() >= classes:
        bad = (labels < 0) | (labels >= classes)
        first = int(bad.argmax())
        no_object = f"Class {classes} is no-object. " if predictions.activation == "softmax" else ""
        raise TargetError(
            f"{bad.sum()} target labels are not in 0..{classes - 1}; the first is {labels[first]:.0f}, in image "
            f"{targets.image_of(first)} of the batch. {no_object}Check whether labels start at 1, or the model has too few "
            "classes: detr_ft.fit_labels(model, names) gives it those of the data"
        )


def _check_boxes(boxes: np.ndarray, targets: Targets) -> None:
    size = boxes[:, 2:]
    with np.errstate(invalid="ignore"):  # infinite boxes are reported below
        low = boxes[:, :2] - 0.5 * size
        high = low + size
    if low.min() >= -_TOLERANCE and high.max() <= 1 + _TOLERANCE and size.min() >= 0:  # false for NaN
        return
    bad = ~((low >= -_TOLERANCE) & (high <= 1 + _TOLERANCE) & (size >= 0)).all(1)
    first = int(bad.argmax())
    values = ", ".join(f"{value:g}" for value in boxes[first])
    raise TargetError(
        f"{bad.sum()} target boxes are not cxcywh in fractions of the image; the first is [{values}], "
        f"in image {targets.image_of(first)} of the batch. {_likely_cause(boxes, boxes[first])}"
    )


def _likely_cause(boxes: np.ndarray, first: np.ndarray) -> str:
    """The likely cause of boxes of which some are not cxcywh in fractions, with its remedy."""
    if not np.isfinite(first).all():
        return "It is not finite"
    if (first[2:] < 0).any():
        return "Its width or height is negative"
    if (np.abs(first) > 2).any():
        return "They are probably pixels: divide by the size of the un-padded image"
    if (boxes[:, 2:] >= boxes[:, :2]).all():
        return "They are probably corners (xyxy): convert with detr_ft.boxes.xyxy_to_cxcywh"
    return "They are probably xywh of COCO, or reach beyond the image"


def _check_finite(name: str, values: Tensor) -> None:
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        layer, image = bad[0, :2].tolist()
        raise CriterionError(
            f"{len(bad)} predicted {name} are NaN or infinite, first at layer {layer}, image {image} of the batch. "
            "The targets are valid, so the model has diverged: check learning rate, clipping and the pixels of that image"
        )
