"""What went wrong in a step whose loss or gradient is not finite: which term, at which layer and image.

A criterion does not look at its losses while it trains, since that would make it wait for the device once more a step.
Whoever finds a bad number, as a training loop must before it steps, asks here.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from detr_ft.criterion.base import Loss
from detr_ft.criterion.input_checks import CriterionError, raise_for_defects, vital_signs
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, Targets


def find_fault(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> str | None:
    """The first fault of a batch in words, or None where the criterion and its gradient are finite.

    Says whether a prediction, a target, a cost or a loss is bad, with the layer and the image of the batch.

    >>> from detr_ft.criterion import detr_criterion
    >>> boxes = torch.tensor([[[[0.5, 0.5, 0.2, float("nan")]]]])
    >>> targets = Targets.from_labels([{"class_labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5)}], boxes.device)
    >>> find_fault(detr_criterion(), Predictions(torch.zeros(1, 1, 1, 2), boxes), targets)[:37]
    '1 predicted boxes are NaN or infinite'
    """
    logits, boxes = (values.detach().clone().requires_grad_() for values in (predictions.logits, predictions.boxes))
    free = replace(predictions, logits=logits, boxes=boxes)
    try:
        raise_for_defects(torch.cat(vital_signs(free, targets)).detach().cpu().numpy(), free, targets)
        matches = criterion.matcher(free, targets)
    except CriterionError as error:
        return str(error)
    for loss in criterion.losses:
        fault = _fault_of(loss, free, targets, matches)
        if fault is not None:
            return f"{fault}; predictions, targets and costs are finite, so look into the loss"
    return None


def _fault_of(loss: Loss, predictions: Predictions, targets: Targets, matches: Matches) -> str | None:
    values: object = loss(predictions, targets, matches)
    if not isinstance(values, Tensor) or values.shape != (predictions.num_layers,):
        shape = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        return f"the loss {loss!r} returned {shape}; a loss returns a tensor [L], here [{predictions.num_layers}]"
    for layer, value in enumerate((loss.weight * values if loss.weight else values).tolist()):
        if not torch.isfinite(torch.tensor(value)):
            return (
                f"the loss {loss!r} is {value} at layer {layer}{_image_of(loss, layer, predictions, targets, matches)}"
            )
    if not loss.weight or not values.requires_grad:
        return None
    inputs = {"logits": predictions.logits, "boxes": predictions.boxes}
    gradients = torch.autograd.grad(loss.weight * values.sum(), list(inputs.values()), allow_unused=True)
    for name, gradient in zip(inputs, gradients, strict=True):
        bad = torch.zeros(0, 4) if gradient is None else (~gradient.isfinite()).nonzero()
        if len(bad):
            layer, image, query = bad[0, :3].tolist()
            return (
                f"the gradient of the loss {loss!r} is NaN or infinite in the {name} of query {query} of image {image} of "
                f"the batch, at layer {layer}; the value of the loss is finite"
            )
    return None


def _image_of(loss: Loss, layer: int, predictions: Predictions, targets: Targets, matches: Matches) -> str:
    """The first image that has the fault by itself, in words; nothing where none has."""
    for image in range(predictions.num_images):
        own, start = matches.image == image, sum(targets.counts[:image])
        pairs = Matches(
            matches.layer[own], torch.zeros_like(matches.image[own]), matches.query[own], matches.target[own] - start, matches.num_boxes
        )  # fmt: skip
        if not loss(predictions.images([image]), targets.of_image(image), pairs)[layer].isfinite():
            return f", image {image} of the batch"
    return ""
