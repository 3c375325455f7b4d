"""The single questions that `verify` puts to a term: each yields what is wrong, in words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from detr_ft.criterion.base import Cost
from detr_ft.criterion.box_losses import CardinalityError
from detr_ft.criterion.checking.cases import LAYERS, QUERIES, Case, elsewhere, reversal, reversed_targets
from detr_ft.criterion.costs import blocks
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, StepTotals, Targets

_ROUNDS = 60  # steps of training


@dataclass(frozen=True)
class Nothing:
    """A loss of no effect that keeps a criterion lawful."""

    weight: float = 1.0
    name: str = "loss_nothing"

    def __call__(self, predictions: Predictions, targets: Targets, matches: object) -> Tensor:
        return 0 * (predictions.logits.float().sum((1, 2, 3)) + predictions.boxes.float().sum((1, 2, 3)))


def try_cost(cost: Cost, case: Case) -> Iterator[str]:
    name, predictions, targets = type(cost).__name__, case.predictions, case.targets
    with torch.no_grad():
        values: object = cost(predictions, targets)
        turned = cost(predictions, reversed_targets(targets))
    expected = (LAYERS, len(targets.labels), QUERIES)
    if not isinstance(values, Tensor):
        yield f"{name}: it answers with a {type(values).__name__}; a cost is a tensor [L, P, Q]"
        return
    if tuple(values.shape) != expected:
        yield f"{name}: the shape is {list(values.shape)}; a cost is [L, P, Q], here {list(expected)}"
        return
    if values.dtype != torch.float32:
        yield f"{name}: the values are {values.dtype}; compute in fp32 (detr_ft.boxes.at_least_fp32)"
    if not values.isfinite().all():
        yield f"{name}: {int((~values.isfinite()).sum())} of {values.numel()} values are NaN or infinite"
        return
    if not torch.allclose(turned[:, reversal(targets)], values, rtol=1e-4, atol=1e-5):
        yield f"{name}: the cost of a target depends on its place among the others"
    for image in range(predictions.num_images):
        own_targets = targets.image == image
        other = cost(elsewhere(predictions, image), targets)
        if not torch.allclose(other[:, own_targets], values[:, own_targets], rtol=1e-4, atol=1e-5):
            yield f"{name}: costs of an image depend on the queries of other images; index them by targets.image"
            return
    for dtype in (torch.bfloat16, torch.float16):
        half = cost(_in_precision(predictions, dtype), targets)
        if half.dtype != torch.float32 or not half.isfinite().all():
            yield f"{name}: not finite and fp32 where predictions are {dtype}; compute in fp32 (detr_ft.boxes.at_least_fp32)"
            return
    for place, own in blocks(targets, 1):
        alone = cost(predictions, own)
        if alone.shape != values[:, place].shape or not torch.allclose(alone, values[:, place], rtol=1e-4, atol=1e-5):
            yield f"{name}: costs of an image's targets depend on those of other images; costs are computed a few images at a time"
            return


def _in_precision(predictions: Predictions, dtype: torch.dtype) -> Predictions:
    return replace(predictions, logits=predictions.logits.to(dtype), boxes=predictions.boxes.to(dtype))


def try_criterion(criterion: SetCriterion, case: Case) -> Iterator[str]:
    loss, values = criterion(case.predictions, case.targets)
    bad = [f"{key} is {value.item()}" for key, value in values.items() if not value.isfinite()]
    if bad:  # every other question would be answered wrongly
        yield from bad
        return
    if not loss.requires_grad:
        yield "no gradient reaches the predictions; is a term computed under no_grad or detached?"
        return
    trains = any(loss.weight and not isinstance(loss, Nothing) for loss in criterion.losses)
    yield from try_matches(criterion.matcher(case.predictions, case.targets), case)
    yield from try_gradient(loss, case, expected=trains and sum(case.targets.counts) > 0)
    yield from try_softmax(criterion, case)
    yield from try_losses(criterion, case)
    if loss.isfinite() and _alike(criterion.matcher(case.predictions, case.targets), case):
        yield from try_sharing(criterion, case, loss.item())
    if max(case.targets.counts) <= QUERIES and loss.isfinite():
        again = criterion(case.predictions, reversed_targets(case.targets))[0].item()
        if abs(again - loss.item()) > 1e-4 * max(1.0, abs(again)):
            yield f"the loss depends on the order of the targets: {loss.item():.6g}, reversed {again:.6g}"


def try_precision(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Predictions in half precision, as under autocast: every term answers in full."""
    for dtype in (torch.bfloat16, torch.float16):
        half = _in_precision(case.predictions, dtype)
        matches = criterion.matcher(half, case.targets)
        for loss in criterion.losses:
            value = loss(half, case.targets, matches)
            if value.dtype not in (torch.float32, torch.float64):
                yield f"{loss.name}: the value is {value.dtype} where predictions are; compute in fp32 (detr_ft.boxes.at_least_fp32)"
            elif not value.isfinite().all():
                yield f"{loss.name} is NaN or infinite where predictions are {dtype}"


def try_weights(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """A term leaves its weight to whoever holds it: with weight 0 it is logged as it was."""
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        given: object = loss
        if is_dataclass(given) and not isinstance(given, Nothing):
            light = replace(cast(Any, given), weight=0.0)
            logged = light(case.predictions, case.targets, matches)
            if not torch.allclose(logged, loss(case.predictions, case.targets, matches), equal_nan=True):
                yield f"{loss.name} changes with its weight; leave that to the criterion, which multiplies by it"


def try_size(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Whether it works at a real model's number of queries at all."""
    loss, _ = criterion(case.predictions, case.targets)
    if not loss.isfinite():
        yield f"the loss is {loss.item()}"


def try_training(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Train free logits, the boxes being right, and look whether their softmax says what the matching says."""
    targets, classes = case.targets, case.predictions.num_classes
    logits = torch.zeros_like(case.predictions.logits, requires_grad=True)
    boxes = case.predictions.boxes.detach().clone()
    start = 0
    for image, count in enumerate(targets.counts):
        boxes[:, image] = targets.boxes[start + torch.arange(QUERIES) % count]
        start += count
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(_ROUNDS):
        optimizer.zero_grad()
        loss, _ = criterion(replace(case.predictions, logits=logits, boxes=boxes), targets)
        if not loss.requires_grad:
            yield "no loss trains the scores: add one of classes, such as CrossEntropyLoss"
            return
        loss.backward()
        optimizer.step()
    trained = replace(case.predictions, logits=logits.detach(), boxes=boxes)
    matches = criterion.matcher(trained, targets)
    said = matches.predicted(trained.most_probable)
    wrong = (said != matches.target_values(targets.labels)).sum()
    free = matches.assign(torch.ones(logits.shape[:3]), torch.zeros(len(matches.layer))).bool()
    loud = (trained.most_probable[free] != classes).sum()
    if wrong or loud:
        yield (
            f"after training free scores by it, {int(wrong)} of {len(said)} matched queries do not say their class, and "
            f"{int(loud)} of {int(free.sum())} others say a class and not no-object; transformers serves the softmax over "
            "K+1, so a loss must train all of it (CrossEntropyLoss does)"
        )


def try_gradient(loss: Tensor, case: Case, *, expected: bool) -> Iterator[str]:
    inputs = case.predictions.logits, case.predictions.boxes
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
    for what, gradient in zip(("logits", "boxes"), gradients, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            yield f"the gradient of the {what} is NaN or infinite"
    if expected and not any(gradient is not None and gradient.any() for gradient in gradients):
        yield "the gradient is 0 everywhere"


def try_losses(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Each loss by itself: whether it trains anything, and whether its layers are kept apart."""
    if sum(case.targets.counts) == 0:
        return
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        if not loss.weight or isinstance(loss, Nothing):
            continue
        inputs = case.predictions.logits, case.predictions.boxes
        values = loss(case.predictions, case.targets, matches)
        if not values.requires_grad:
            yield f"{loss.name}: no gradient reaches the predictions; is it computed under no_grad or detached?"
            continue
        of_first = torch.autograd.grad(values[0], inputs, allow_unused=True, retain_graph=True)
        if any(gradient is not None and gradient[1:].any() for gradient in of_first):
            yield f"{loss.name}: the value of a layer depends on other layers; sum with matches.per_layer"


def _alike(matches: Matches, case: Case) -> bool:
    """Whether every target has as many queries as every other: then no image lacked any."""
    pairs = torch.zeros(LAYERS, len(case.targets.labels))
    pairs.index_put_((matches.layer, matches.target), torch.ones(len(matches.layer)), accumulate=True)
    return bool((pairs == pairs[:, :1]).all()) if pairs.numel() else True


def try_softmax(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """A softmax does not change when all K+1 logits grow alike, so neither may a loss that trains one."""
    predictions = replace(case.predictions, logits=case.predictions.logits.detach() + 1.5)
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        if isinstance(loss, CardinalityError):
            continue
        with torch.no_grad():
            before, after = (loss(said, case.targets, matches) for said in (case.predictions, predictions))
        if not torch.allclose(before, after, rtol=1e-3, atol=1e-3):
            yield (
                f"{loss.name} changes when all K+1 logits of a query grow by the same number, so it does not "
                "train their softmax; transformers serves softmax scores, and would serve this model wrongly"
            )


def try_sharing(criterion: SetCriterion, case: Case, whole: float) -> Iterator[str]:
    """Image by image, told what the whole step holds, the losses must add up: so several processes share a step."""
    predictions, targets = case.predictions, case.targets
    labels = torch.bincount(targets.labels, minlength=predictions.num_classes).float()
    step = StepTotals(len(targets.counts), labels)
    shared = 0.0
    for image in range(predictions.num_images):
        own = replace(targets.of_image(image), step=step)
        shared += criterion(predictions.images([image]), own)[0].item()
    if abs(shared - whole) > 1e-3 * max(1.0, abs(whole)):
        yield (
            f"the loss depends on how processes share the images, {whole:.6g} together and {shared:.6g} one by one; "
            "divide sums over pairs by matches.num_boxes"
        )
        return
    double = replace(targets, num_boxes=2 * targets.num_boxes, step=StepTotals(2 * step.images, 2 * step.labels))
    half = criterion(predictions, double)[0].item()
    if abs(2 * half - whole) > 1e-3 * max(1.0, abs(whole)):
        yield (
            f"the loss of half a step is not half of it, {half:.6g} of {whole:.6g}, so it grows with the number of "
            "processes; divide sums over pairs by matches.num_boxes"
        )


def try_matches(matches: object, case: Case) -> Iterator[str]:
    """Whether a matcher answers with pairs that exist, of one image each, no query twice."""
    if not isinstance(matches, Matches):
        yield f"the matcher answers with a {type(matches).__name__}, not with detr_ft.structures.Matches"
        return
    targets = case.targets
    for what, index, size in (
        ("layer", matches.layer, LAYERS),
        ("image", matches.image, case.predictions.num_images),
        ("query", matches.query, case.predictions.num_queries),
        ("target", matches.target, len(targets.labels)),
    ):
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
            yield f"the matcher names {what} {int(index.max() if index.max() >= size else index.min())}; there are {size}, counted from 0"
            return
    if not torch.equal(targets.image[matches.target], matches.image):
        yield "the matcher pairs a query of one image with a target of another"
    places = torch.stack([matches.layer, matches.image, matches.query])
    if places.unique(dim=1).shape[1] != places.shape[1]:
        yield "the matcher gives one query to two targets of a layer"
    if tuple(matches.num_boxes.shape) != (LAYERS,):
        yield f"the matches' num_boxes has the shape {list(matches.num_boxes.shape)}; it is one number for each layer, [{LAYERS}]"
