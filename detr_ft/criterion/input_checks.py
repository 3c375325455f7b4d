"""What can be wrong with the input of a criterion, found without an extra synchronisation and told in words."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from detr_ft.structures import Predictions, Targets

_TOLERANCE = 0.02  # of the image: annotation tools round, and a box may stick out by a pixel


class CriterionError(ValueError):
    """A prediction, a target or a term that can't be scored; says which, and what is likely wrong."""


class TargetError(CriterionError):
    """A target that can't be scored: a label out of range, a box that is not cxcywh in fractions."""


def vital_signs(predictions: Predictions, targets: Targets) -> list[Tensor]:
    """What shows any defect, as flat tensors that travel to the host with the costs: `[4P]`, `[P]`, `[1]`.

    The targets' boxes and labels, and the sum of all logits and boxes, which one bad value makes NaN or infinite.
    """
    said = predictions.logits.sum(dtype=torch.float32) + predictions.boxes.sum(dtype=torch.float32)
    return [targets.boxes.flatten().float(), targets.labels, said[None]]


def raise_for_defects(signs: np.ndarray, predictions: Predictions, targets: Targets) -> None:
    """Raise a CriterionError that names image, layer and likely cause where the `vital_signs`, joined, show a defect."""
    total = len(targets.labels)
    if total:
        _refuse_labels(signs[4 * total : -1], targets, predictions.num_classes)
        _refuse_frames(signs[: 4 * total].reshape(-1, 4), targets)
    if not math.isfinite(signs[-1]):
        _refuse_predictions("logits", predictions.logits)
        _refuse_predictions("boxes", predictions.boxes)


def _refuse_labels(labels: np.ndarray, targets: Targets, classes: int) -> None:
    if labels.min() < 0 or labels.max() >= classes:
        bad = (labels < 0) | (labels >= classes)
        first = int(bad.argmax())
        raise TargetError(
            f"{bad.sum()} target labels lie outside 0..{classes - 1}; the first is {labels[first]:.0f}, in image "
            f"{targets.image_of(first)} of the batch. Class {classes} would be no-object: are the labels 1-based, or "
            "does the model have too few classes?"
        )


def _refuse_frames(boxes: np.ndarray, targets: Targets) -> None:
    size = boxes[:, 2:]
    with np.errstate(invalid="ignore"):  # infinite boxes are told below
        low = boxes[:, :2] - 0.5 * size
        high = low + size
    if low.min() >= -_TOLERANCE and high.max() <= 1 + _TOLERANCE and size.min() >= 0:  # false for NaN
        return
    bad = ~((low >= -_TOLERANCE) & (high <= 1 + _TOLERANCE) & (size >= 0)).all(1)
    first = int(bad.argmax())
    values = ", ".join(f"{value:g}" for value in boxes[first])
    raise TargetError(
        f"{bad.sum()} target boxes are not cxcywh in fractions of the image; the first is [{values}], "
        f"in image {targets.image_of(first)} of the batch; {_likely_format(boxes, boxes[first])}"
    )


def _likely_format(boxes: np.ndarray, first: np.ndarray) -> str:
    """What boxes of which some are not cxcywh in fractions probably are."""
    if not np.isfinite(first).all():
        return "it is not finite"
    if (first[2:] < 0).any():
        return "its width or height is negative"
    if (np.abs(first) > 2).any():
        return "they look like pixels: divide by the size of the un-padded image"
    if (boxes[:, 2:] >= boxes[:, :2]).all():
        return "they look like corners (xyxy): convert with detr_ft.boxes.xyxy_to_cxcywh"
    return "they look like COCO's xywh, or reach beyond the image"


def _refuse_predictions(name: str, values: Tensor) -> None:
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        layer, image = bad[0, :2].tolist()
        raise CriterionError(
            f"{len(bad)} predicted {name} are NaN or infinite, first at layer {layer}, image {image} of the batch. "
            "The targets are sound, so the model has diverged: look at the learning rate, clipping and the pixels of that image"
        )
