"""Search for the term, layer and image of a loss or gradient that is not finite.

A criterion does not check its losses, because that would synchronize the device at every step. Call `find_fault` when a
loss or a gradient is not finite.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from detr_ft.criterion.base import Loss, Matcher
from detr_ft.criterion.checking.effects import copied, describe_changes, snapshot
from detr_ft.criterion.input_checks import CriterionError, defect_signs, raise_for_defects
from detr_ft.criterion.matchers import LayerMatcher, MatcherSchedule, costs_of
from detr_ft.criterion.set_criterion import SetCriterion, check_value
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.utils.user_code import describe_error, raise_if_interrupt


def find_fault(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> str | None:
    """Describe the first fault of a batch; None where the criterion and its gradient are finite.

    The message names the prediction, target, cost or loss, its layer, and its image of the batch. An exception of a term is
    a fault of it, with file and line; so are inputs that it changes in place, if all values are finite.

    >>> from detr_ft.criterion import detr_criterion
    >>> boxes = torch.tensor([[[[0.5, 0.5, 0.2, float("nan")]]]])
    >>> targets = Targets.from_labels([{"class_labels": torch.tensor([0]), "boxes": torch.full((1, 4), 0.5)}], boxes.device)
    >>> find_fault(detr_criterion(), Predictions(torch.zeros(1, 1, 1, 2), boxes), targets)[:37]
    '1 predicted boxes are NaN or infinite'
    """
    logits, boxes = (values.detach().clone().requires_grad_() for values in (predictions.logits, predictions.boxes))
    leaves = replace(predictions, logits=logits, boxes=boxes)
    try:
        raise_for_defects(torch.cat(defect_signs(leaves, targets)).detach().cpu().numpy(), leaves, targets)
        # Each term has inputs of its own, which one that changes them in place can't spoil for the others.
        inputs = [copied(leaves), copied(targets)]
        before = snapshot(*inputs)
        matches = criterion.matcher(*inputs)
        changes: list[tuple[Matcher | Loss, str | None]] = [(criterion.matcher, describe_changes(before, *inputs))]
        for loss in criterion.losses:
            own = [copied(leaves), copied(targets), copied(matches)]
            before = snapshot(*own)
            fault = _fault_of(loss, *own)
            if fault is not None:
                return f"{fault}. Predictions, targets and costs are finite, so the fault is in the loss"
            changes.append((loss, describe_changes(before, *own)))
        return next((f"{term!r} {change}" for term, change in changes if change), None)
    except CriterionError as error:
        return str(error)
    except BaseException as error:  # noqa: BLE001 - the user's term may raise any exception
        raise_if_interrupt(error)
        return describe_exception(error, criterion)


def describe_exception(error: BaseException, criterion: SetCriterion) -> str:
    """Describe an exception, with the term that raised it and the file and line of that term's code.

    Of an exception that no cost, loss or matcher of the criterion raised, the message has file and line only.
    """
    term = ""
    terms = [*_matchers_of(criterion.matcher), *costs_of(criterion.matcher), *criterion.losses]
    for inner, _ in traceback.walk_tb(error.__traceback__):
        owner = inner.f_locals.get("self")
        if any(owner is one for one in terms):
            term = f"{type(owner).__name__}: "
    return f"{term}{describe_error(error)}"


@contextmanager
def exceptions_only(criterion: SetCriterion) -> Iterator[None]:
    """Raise CriterionError in place of a term's SystemExit and other exceptions that are no `Exception`."""
    try:
        yield
    except BaseException as error:
        raise_if_interrupt(error)
        if isinstance(error, Exception):
            raise
        raise CriterionError(describe_exception(error, criterion)) from error


def _matchers_of(matcher: Matcher) -> Iterator[Matcher]:
    """Yield a matcher and those inside it."""
    yield matcher
    inner: tuple[Matcher, ...] = ()
    if isinstance(matcher, LayerMatcher):
        inner = (matcher.last, matcher.auxiliary)
    if isinstance(matcher, MatcherSchedule):
        inner = tuple(matcher.matchers)
    for part in inner:
        yield from _matchers_of(part)


def _fault_of(loss: Loss, predictions: Predictions, targets: Targets, matches: Matches) -> str | None:
    values = loss(predictions, targets, matches)
    check_value(loss, values, predictions.num_layers)
    for layer, value in enumerate((loss.weight * values if loss.weight else values).tolist()):
        if not math.isfinite(value):
            image = _image_of(loss, layer, predictions, targets, matches)
            return f"the loss {loss!r} is {value} at layer {layer}{image}"
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
                f"the batch, at layer {layer}, while the value of the loss is finite"
            )
    return None


def _image_of(loss: Loss, layer: int, predictions: Predictions, targets: Targets, matches: Matches) -> str:
    """The first image whose own loss is not finite, as the end of a message; empty where there is none."""
    for image in range(predictions.num_images):
        own, start = matches.image == image, sum(targets.counts[:image])
        pairs = Matches(
            matches.layer[own], torch.zeros_like(matches.image[own]), matches.query[own], matches.target[own] - start, matches.num_boxes
        )  # fmt: skip
        if not loss(predictions.images([image]), targets.of_image(image), pairs)[layer].isfinite():
            return f", image {image} of the batch"
    return ""
