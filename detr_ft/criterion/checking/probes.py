"""Single properties of a term that `check` tests: each function yields the problems of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from detr_ft.criterion.base import Cost
from detr_ft.criterion.box_losses import CardinalityError
from detr_ft.criterion.checking.cases import (
    LAYERS,
    QUERIES,
    Case,
    in_precision,
    reversal,
    reversed_targets,
    with_other_images_changed,
)
from detr_ft.criterion.costs import image_blocks
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, StepTotals, Targets

_TRAINING_STEPS = 60


@dataclass(frozen=True)
class ZeroLoss:
    """A loss without effect, for a criterion whose other losses have weight 0."""

    weight: float = 1.0
    name: str = "loss_zero"

    def __call__(self, predictions: Predictions, targets: Targets, matches: object) -> Tensor:
        return 0 * (predictions.logits.float().sum((1, 2, 3)) + predictions.boxes.float().sum((1, 2, 3)))


def probe_cost(cost: Cost, case: Case) -> Iterator[str]:
    """Yield the faults of a cost on a batch: shape, type, values, and other orders of targets."""
    name, predictions, targets = type(cost).__name__, case.predictions, case.targets
    with torch.no_grad():
        values: object = cost(predictions, targets)
        reversed_values = cost(predictions, reversed_targets(targets))
    expected = (LAYERS, len(targets.labels), QUERIES)
    if not isinstance(values, Tensor):
        yield f"{name}: a cost must return a tensor [L, P, Q], got {type(values).__name__}"
        return
    if tuple(values.shape) != expected:
        yield f"{name}: a cost must be [L, P, Q], here {list(expected)}, got {list(values.shape)}"
        return
    if values.dtype != torch.float32:
        yield f"{name}: the values are {values.dtype}. Compute in fp32 (detr_ft.boxes.at_least_fp32)"
    if not values.isfinite().all():
        yield f"{name}: {int((~values.isfinite()).sum())} of {values.numel()} values are NaN or infinite"
        return
    if not torch.allclose(reversed_values[:, reversal(targets)], values, rtol=1e-4, atol=1e-5):
        yield f"{name}: the cost of a target depends on the order of the targets"
    for image in range(predictions.num_images):
        own_targets = targets.image == image
        other = cost(with_other_images_changed(predictions, image), targets)
        if not torch.allclose(other[:, own_targets], values[:, own_targets], rtol=1e-4, atol=1e-5):
            yield f"{name}: costs of an image depend on the queries of other images. Index queries by targets.image"
            return
    for dtype in (torch.bfloat16, torch.float16):
        half = cost(in_precision(predictions, dtype), targets)
        if half.dtype != torch.float32 or not half.isfinite().all():
            yield f"{name}: not finite and fp32 where predictions are {dtype}. Compute in fp32 (detr_ft.boxes.at_least_fp32)"
            return
    for indices, own in image_blocks(targets, 1):
        alone = cost(predictions, own)
        if alone.shape != values[:, indices].shape or not torch.allclose(
            alone, values[:, indices], rtol=1e-4, atol=1e-5
        ):
            yield (
                f"{name}: costs of the targets of an image depend on the targets of other images. Costs are computed for a "
                "few images at a time, so use the own target alone"
            )
            return


def probe_criterion(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Yield the faults of a criterion on a batch: values, gradient, other orders and divisions."""
    loss, values = criterion(case.predictions, case.targets)
    not_finite = [f"{key} is {value.item()}" for key, value in values.items() if not value.isfinite()]
    if not_finite:  # the other probes would report consequences of it
        yield from not_finite
        return
    if not loss.requires_grad:
        yield "no gradient reaches the predictions. Remove no_grad and detach from the terms"
        return
    trains = any(loss.weight and not isinstance(loss, ZeroLoss) for loss in criterion.losses)
    yield from probe_matches(criterion.matcher(case.predictions, case.targets), case)
    yield from probe_gradient(loss, case, expected=trains and sum(case.targets.counts) > 0)
    yield from probe_softmax(criterion, case)
    yield from probe_losses(criterion, case)
    if loss.isfinite() and _equally_matched(criterion.matcher(case.predictions, case.targets), case):
        yield from probe_split(criterion, case, loss.item())
    if max(case.targets.counts) <= QUERIES and loss.isfinite():
        again = criterion(case.predictions, reversed_targets(case.targets))[0].item()
        if abs(again - loss.item()) > 1e-4 * max(1.0, abs(again)):
            yield f"the loss depends on the order of the targets: {loss.item():.6g}, in reverse {again:.6g}"


def probe_precision(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Half-precision predictions, as under autocast: every term must return fp32."""
    for dtype in (torch.bfloat16, torch.float16):
        half = in_precision(case.predictions, dtype)
        matches = criterion.matcher(half, case.targets)
        for loss in criterion.losses:
            value = loss(half, case.targets, matches)
            if value.dtype not in (torch.float32, torch.float64):
                yield f"{loss.name}: the value is {value.dtype} like the predictions. Compute in fp32 (detr_ft.boxes.at_least_fp32)"
            elif not value.isfinite().all():
                yield f"{loss.name} is NaN or infinite where predictions are {dtype}"


def probe_weights(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Independence of the value from the weight, by which the criterion multiplies."""
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        term: object = loss
        if is_dataclass(term) and not isinstance(term, ZeroLoss):
            unweighted = replace(cast(Any, term), weight=0.0)
            logged = unweighted(case.predictions, case.targets, matches)
            if not torch.allclose(logged, loss(case.predictions, case.targets, matches), equal_nan=True):
                yield f"{loss.name} depends on its weight. Return the unweighted value; the criterion multiplies by the weight"


def probe_size(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """A finite loss with as many queries as a real model has."""
    loss, _ = criterion(case.predictions, case.targets)
    if not loss.isfinite():
        yield f"the loss is {loss.item()}"


def probe_training(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Train free logits with correct boxes, and compare the predicted classes with the matching."""
    targets, classes = case.targets, case.predictions.num_classes
    logits = torch.zeros_like(case.predictions.logits, requires_grad=True)
    boxes = case.predictions.boxes.detach().clone()
    start = 0
    for image, count in enumerate(targets.counts):
        boxes[:, image] = targets.boxes[start + torch.arange(QUERIES) % count]
        start += count
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(_TRAINING_STEPS):
        optimizer.zero_grad()
        loss, _ = criterion(replace(case.predictions, logits=logits, boxes=boxes), targets)
        if not loss.requires_grad:
            yield "no loss trains the scores. Add a loss of classes, such as CrossEntropyLoss"
            return
        loss.backward()
        optimizer.step()
    trained = replace(case.predictions, logits=logits.detach(), boxes=boxes)
    matches = criterion.matcher(trained, targets)
    labels = matches.predicted(trained.most_probable)
    wrong = (labels != matches.target_values(targets.labels)).sum()
    free = matches.assign(torch.ones(logits.shape[:3]), torch.zeros(len(matches.layer))).bool()
    false_positives = (trained.most_probable[free] != classes).sum()
    if wrong or false_positives:
        yield (
            f"after training free scores, {int(wrong)} of {len(labels)} matched queries do not predict their class, and "
            f"{int(false_positives)} of {int(free.sum())} others predict a class instead of no-object. The model is used with "
            "the softmax over K+1, so train all of it, as CrossEntropyLoss does"
        )


def probe_gradient(loss: Tensor, case: Case, *, expected: bool) -> Iterator[str]:
    """Yield the faults of a gradient: NaN or infinite values, and none at all where one is `expected`."""
    inputs = case.predictions.logits, case.predictions.boxes
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
    for name, gradient in zip(("logits", "boxes"), gradients, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            yield f"the gradient of the {name} is NaN or infinite"
    if expected and not any(gradient is not None and gradient.any() for gradient in gradients):
        yield "the gradient is 0 everywhere"


def probe_losses(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Each loss alone: a gradient, and layers that are independent of each other."""
    if sum(case.targets.counts) == 0:
        return
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        if not loss.weight or isinstance(loss, ZeroLoss):
            continue
        inputs = case.predictions.logits, case.predictions.boxes
        values = loss(case.predictions, case.targets, matches)
        if not values.requires_grad:
            yield f"{loss.name}: no gradient reaches the predictions. Remove no_grad and detach"
            continue
        of_first = torch.autograd.grad(values[0], inputs, allow_unused=True, retain_graph=True)
        if any(gradient is not None and gradient[1:].any() for gradient in of_first):
            yield f"{loss.name}: the value of a layer depends on other layers. Sum with matches.per_layer"


def _equally_matched(matches: Matches, case: Case) -> bool:
    """Return whether all targets have the same number of queries: then no image had too few."""
    pairs = torch.zeros(LAYERS, len(case.targets.labels))
    pairs.index_put_((matches.layer, matches.target), torch.ones(len(matches.layer)), accumulate=True)
    return bool((pairs == pairs[:, :1]).all()) if pairs.numel() else True


def probe_softmax(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Invariance to an offset of all K+1 logits of a query, which the softmax has, too."""
    if case.predictions.activation != "softmax":
        return
    predictions = replace(case.predictions, logits=case.predictions.logits.detach() + 1.5)
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        if isinstance(loss, CardinalityError):
            continue
        with torch.no_grad():
            before, after = (loss(batch, case.targets, matches) for batch in (case.predictions, predictions))
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-3):
            yield (
                f"{loss.name} changes when the same number is added to all K+1 logits of a query, so it does not train their "
                "softmax, which gives the scores of the model. Use Predictions.log_probability"
            )


def probe_split(criterion: SetCriterion, case: Case, whole: float) -> Iterator[str]:
    """Sums of losses of single images that equal the loss of the batch, as several processes need."""
    predictions, targets = case.predictions, case.targets
    labels = torch.bincount(targets.labels, minlength=predictions.num_classes).float()
    step = StepTotals(len(targets.counts), labels)
    total = 0.0
    for image in range(predictions.num_images):
        own = replace(targets.of_image(image), step=step)
        total += criterion(predictions.images([image]), own)[0].item()
    if abs(total - whole) > 1e-3 * max(1.0, abs(whole)):
        yield (
            f"the loss depends on the split of images over processes: {whole:.6g} together, {total:.6g} as single images. "
            "Divide sums over pairs by matches.num_boxes"
        )
        return
    double = replace(targets, num_boxes=2 * targets.num_boxes, step=StepTotals(2 * step.images, 2 * step.labels))
    half = criterion(predictions, double)[0].item()
    if abs(2 * half - whole) > 1e-3 * max(1.0, abs(whole)):
        yield (
            f"the loss of half a step is {half:.6g}, not half of {whole:.6g}, so it depends on the number of processes. "
            "Divide sums over pairs by matches.num_boxes"
        )


def probe_matches(matches: object, case: Case) -> Iterator[str]:
    """Pairs of a matcher: existing indices, query and target of one image, no query twice."""
    if not isinstance(matches, Matches):
        yield f"a matcher must return detr_ft.structures.Matches, got {type(matches).__name__}"
        return
    targets = case.targets
    for name, index, size in (
        ("layer", matches.layer, LAYERS),
        ("image", matches.image, case.predictions.num_images),
        ("query", matches.query, case.predictions.num_queries),
        ("target", matches.target, len(targets.labels)),
    ):
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            yield f"Matches.{name} must be in 0..{size - 1}, got {int(index.max() if index.max() >= size else index.min())}"
            return
    if not torch.equal(targets.image[matches.target], matches.image):
        yield "the matcher pairs a query of one image with a target of another"
    queries = torch.stack([matches.layer, matches.image, matches.query])
    if queries.unique(dim=1).shape[1] != queries.shape[1]:
        yield "the matcher gives one query to two targets of a layer"
    if tuple(matches.num_boxes.shape) != (LAYERS,):
        yield f"Matches.num_boxes must have one value for each layer, [{LAYERS}], got {list(matches.num_boxes.shape)}"
