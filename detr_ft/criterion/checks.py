"""What can be wrong with the input of a criterion, found without an extra synchronisation and told in words."""

from __future__ import annotations

import torch
from torch import Tensor

from detr_ft.structures import Predictions, Targets

_TOLERANCE = 0.02  # of the image: annotation tools round, and a box may stick out by a pixel


class CriterionError(ValueError):
    """A prediction, a target or a term that can't be scored; says which, and what is likely wrong."""


def defects(predictions: Predictions, targets: Targets) -> Tensor:
    """Counts `[4]` on the device: non-finite logits, non-finite boxes, labels out of range, boxes out of format."""
    corners = torch.cat(
        [targets.boxes[:, :2] - targets.boxes[:, 2:] / 2, targets.boxes[:, :2] + targets.boxes[:, 2:] / 2], -1
    )
    inside = (corners >= -_TOLERANCE) & (corners <= 1 + _TOLERANCE) & (targets.boxes[:, [2, 3, 2, 3]] >= 0)
    outside_classes = (targets.labels < 0) | (targets.labels >= predictions.num_classes)
    return torch.stack(
        [
            (~predictions.logits.isfinite()).sum(),
            (~predictions.boxes.isfinite()).sum(),
            outside_classes.sum(),
            (~inside.all(-1)).sum(),  # also true for NaN
        ]
    ).float()


def raise_for_defects(counts: list[int], predictions: Predictions, targets: Targets) -> None:
    """Raise a CriterionError that names image, layer and likely cause when any of the counts of `defects` is not 0."""
    logits, boxes, labels, frames = counts
    if labels:
        bad = _first((targets.labels < 0) | (targets.labels >= predictions.num_classes))
        raise CriterionError(
            f"{labels} target labels lie outside 0..{predictions.num_classes - 1}; the first is {int(targets.labels[bad])}, "
            f"in image {int(targets.image[bad])} of the batch. Class {predictions.num_classes} would be no-object: "
            "are the labels 1-based, or does the model have too few classes?"
        )
    if frames:
        raise CriterionError(_frame_message(frames, targets))
    if logits or boxes:
        name, values = ("logits", predictions.logits) if logits else ("boxes", predictions.boxes)
        layer, image = (~values.isfinite()).flatten(2).any(-1).nonzero()[0].tolist()
        raise CriterionError(
            f"{logits or boxes} predicted {name} are NaN or infinite, first at layer {layer}, image {image} of the batch. "
            "The targets are sound, so the model has diverged: look at the learning rate, clipping and the pixels of that image"
        )


def _frame_message(count: int, targets: Targets) -> str:
    boxes = targets.boxes.float()
    corners = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], -1)
    inside = (corners >= -_TOLERANCE) & (corners <= 1 + _TOLERANCE) & (boxes[:, [2, 3, 2, 3]] >= 0)
    bad = _first(~inside.all(-1))
    box = boxes[bad]
    if not bool(box.isfinite().all()):
        likely = "it is not finite"
    elif bool((boxes.abs() > 2).any()):
        likely = "they look like pixels: divide by the size of the un-padded image"
    elif bool((boxes[:, 2:] >= boxes[:, :2]).all()):
        likely = "they look like corners (xyxy): convert with detr_ft.boxes.xyxy_to_cxcywh"
    else:
        likely = "they look like COCO's xywh, or reach beyond the image"
    values = ", ".join(f"{value:g}" for value in box.tolist())
    return (
        f"{count} target boxes are not cxcywh in fractions of the image; the first is [{values}], "
        f"in image {int(targets.image[bad])} of the batch; {likely}"
    )


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])
