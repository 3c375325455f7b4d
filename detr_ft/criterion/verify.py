"""Try terms, one's own included, on small nasty batches: seconds on a CPU. Each answer is a list of what is wrong, in words.

assert check_loss(MyLoss()) == []
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detr_ft.criterion.checks import CriterionError
from detr_ft.criterion.class_losses import CrossEntropyLoss, FocalLoss
from detr_ft.criterion.costs import Cost
from detr_ft.criterion.losses import CardinalityError, Loss
from detr_ft.criterion.matchers import HungarianMatcher, MatcherSchedule
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.criterion.trials import LAYERS, QUERIES, Case, cases, elsewhere, reversal, reversed_targets
from detr_ft.structures import Matches, Predictions, Step, Targets

logger = logging.getLogger("detr_ft.criterion")

_CLASSES = 4


def check_cost(cost: Cost) -> list[str]:
    """What is wrong with a cost: shape `[L, P, Q]`, fp32, finite, of the target's own image, targets in any order.

    >>> from detr_ft.criterion import GIoUCost
    >>> check_cost(GIoUCost())
    []
    """
    with _quiet():
        return _grouped((case, problem) for case in cases(_CLASSES) for problem in _caught(_try_cost(cost, case)))


def check_loss(loss: Loss) -> list[str]:
    """What is wrong with a loss: its shape `[L]`, value and gradient, and whether it trains a softmax over K+1.

    It is scored after DETR's own matching, with and without objects, with more objects than queries, with extreme
    logits and boxes without area, and with the targets in another order. A loss of weight 0 is tried without a gradient.

    >>> check_loss(CrossEntropyLoss())
    []
    """
    try:
        return check_criterion(SetCriterion(HungarianMatcher(), [loss] if loss.weight else [loss, _Nothing()]))
    except (AttributeError, TypeError, ValueError) as error:  # no loss, or one that no criterion takes
        return [str(error)]


def check_criterion(criterion: SetCriterion) -> list[str]:
    """What is wrong with a criterion, in words; an empty list is a pass.

    On batches with and without objects, with more objects than queries and with extreme values: finite losses, gradients
    that are finite and reach logits and boxes, the same loss when the targets of an image change places, and class
    losses that train a softmax over K+1.
    """
    schedule = criterion.matcher
    turns = schedule.starts if isinstance(schedule, MatcherSchedule) else [0]
    with _quiet():
        found = [
            (case, problem)
            for start in turns
            for case in cases(_classes_of(criterion))
            for problem in _caught(_try_criterion(criterion.at(start), case))
        ]
    return [*(problem for loss in criterion.losses for problem in _learnable(loss)), *_grouped(found)]


def _grouped(found: Iterable[tuple[Case, str]]) -> list[str]:
    """Each problem once, with the first of the batches that show it."""
    by_problem: dict[str, list[Case]] = {}
    for case, problem in found:
        by_problem.setdefault(problem, []).append(case)
    return [
        f"on {shown[0]}{f' and {len(shown) - 1} more batches' if len(shown) > 1 else ''}: {problem}"
        for problem, shown in by_problem.items()
    ]


def _caught(trial: Iterator[str]) -> Iterator[str]:
    """The problems that a trial finds; whatever a term raises is one, told with the line that it was raised from."""
    try:
        yield from trial
    except CriterionError as error:
        yield str(error)
    except Exception as error:  # noqa: BLE001 - somebody else's code runs here, and its faults are what is looked for
        frame = traceback.extract_tb(error.__traceback__)[-1]
        yield f"{type(error).__name__}: {error} ({Path(frame.filename).name}, line {frame.lineno})"


@dataclass(frozen=True)
class _Nothing:
    """A loss of no effect that keeps a criterion lawful."""

    weight: float = 1.0
    name: str = "loss_nothing"

    def __call__(self, predictions: Predictions, targets: Targets, matches: object) -> Tensor:
        return 0 * (predictions.logits.float().sum((1, 2, 3)) + predictions.boxes.float().sum((1, 2, 3)))


def _learnable(loss: object) -> Iterator[str]:
    if isinstance(loss, nn.Module) and next(loss.parameters(), None) is not None:
        yield f"{type(loss).__name__} has learnable weights: nothing would train them, and the saved model would lack them"


def _try_cost(cost: Cost, case: Case) -> Iterator[str]:
    name, predictions, targets = type(cost).__name__, case.predictions, case.targets
    with torch.no_grad():
        values: object = cost(predictions, targets)
        turned = cost(predictions, reversed_targets(targets))
        other = cost(elsewhere(predictions), targets)
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
    first = targets.image == 0
    if not torch.allclose(other[:, first], values[:, first], rtol=1e-4, atol=1e-5):
        yield f"{name}: costs of image 0 depend on the queries of other images; index them by targets.image"


def _try_criterion(criterion: SetCriterion, case: Case) -> Iterator[str]:
    loss, values = criterion(case.predictions, case.targets)
    for key, value in values.items():
        if not value.isfinite():
            yield f"{key} is {value.item()}"
    if not loss.requires_grad:
        yield "no gradient reaches the predictions; is a term computed under no_grad or detached?"
        return
    trains = any(loss.weight and not isinstance(loss, _Nothing) for loss in criterion.losses)
    yield from _try_gradient(loss, case, expected=trains and sum(case.targets.counts) > 0)
    yield from _try_softmax(criterion, case)
    yield from _try_losses(criterion, case)
    if loss.isfinite() and _alike(criterion.matcher(case.predictions, case.targets), case):
        yield from _try_sharing(criterion, case, loss.item())
    if max(case.targets.counts) <= QUERIES and loss.isfinite():
        again = criterion(case.predictions, reversed_targets(case.targets))[0].item()
        if abs(again - loss.item()) > 1e-4 * max(1.0, abs(again)):
            yield f"the loss depends on the order of the targets: {loss.item():.6g}, reversed {again:.6g}"


def _try_gradient(loss: Tensor, case: Case, *, expected: bool) -> Iterator[str]:
    inputs = case.predictions.logits, case.predictions.boxes
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
    for what, gradient in zip(("logits", "boxes"), gradients, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            yield f"the gradient of the {what} is NaN or infinite"
    if expected and not any(gradient is not None and gradient.any() for gradient in gradients):
        yield "the gradient is 0 everywhere"


def _try_losses(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """Each loss by itself: whether it trains anything, and whether its layers are kept apart."""
    if sum(case.targets.counts) == 0:
        return
    matches = criterion.matcher(case.predictions, case.targets)
    for loss in criterion.losses:
        if not loss.weight or isinstance(loss, _Nothing):
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


def _try_softmax(criterion: SetCriterion, case: Case) -> Iterator[str]:
    """A softmax does not change when all K+1 logits grow alike, so neither may a loss that trains one."""
    predictions = Predictions(case.predictions.logits.detach() + 1.5, case.predictions.boxes)
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


def _try_sharing(criterion: SetCriterion, case: Case, whole: float) -> Iterator[str]:
    """Image by image, told what the whole step holds, the losses must add up: so several processes share a step."""
    predictions, targets = case.predictions, case.targets
    labels = torch.bincount(targets.labels, minlength=predictions.num_classes).float()
    step = Step(len(targets.counts), labels)
    shared = 0.0
    for image, count in enumerate(targets.counts):
        own = targets.image == image
        part = Predictions(predictions.logits[:, [image]], predictions.boxes[:, [image]])
        there = torch.zeros(count, dtype=torch.long)
        truth = Targets(targets.labels[own], targets.boxes[own], there, (count,), targets.num_boxes, step)
        shared += criterion(part, truth)[0].item()
    if abs(shared - whole) > 1e-3 * max(1.0, abs(whole)):
        yield (
            f"the loss depends on how processes share the images, {whole:.6g} together and {shared:.6g} one by one; "
            "divide sums over pairs by matches.num_boxes"
        )


def _classes_of(criterion: SetCriterion) -> int:
    """The number of classes that a criterion is for: as many as it has weights of classes, or any."""
    weights = [
        loss.class_weights
        for loss in criterion.losses
        if isinstance(loss, (CrossEntropyLoss, FocalLoss)) and loss.class_weights
    ]
    return len(weights[0]) if weights else _CLASSES


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back the warning about more objects than queries, which one of the batches has on purpose."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
