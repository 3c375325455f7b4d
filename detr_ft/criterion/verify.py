"""Try terms, one's own included, on small nasty batches: seconds on a CPU. Each answer is a list of what is wrong, in words.

assert check_loss(MyLoss()) == []
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from detr_ft.criterion.checks import CriterionError
from detr_ft.criterion.class_losses import CrossEntropyLoss, FocalLoss
from detr_ft.criterion.costs import Cost
from detr_ft.criterion.losses import CardinalityError, Loss
from detr_ft.criterion.matchers import HungarianMatcher
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Predictions, Targets

logger = logging.getLogger("detr_ft.criterion")

_LAYERS, _QUERIES, _CLASSES = 3, 7, 4
_FAULTS = (CriterionError, RuntimeError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)


@dataclass(frozen=True, eq=False)
class _Case:
    """A batch with a name that a message can give."""

    name: str
    predictions: Predictions
    targets: Targets

    def __str__(self) -> str:
        return f"{self.name} (objects of each image: {', '.join(map(str, self.targets.counts))})"


def check_cost(cost: Cost) -> list[str]:
    """What is wrong with a cost: shape `[L, P, Q]`, fp32, finite, of the target's own image, targets in any order.

    >>> from detr_ft.criterion import GIoUCost
    >>> check_cost(GIoUCost())
    []
    """
    with _quiet():
        return [problem for case in _cases(_CLASSES) for problem in _try_cost(cost, case)]


def check_loss(loss: Loss) -> list[str]:
    """What is wrong with a loss: its shape `[L]`, value and gradient, and whether it trains a softmax over K+1.

    It is scored after DETR's own matching, with and without objects, with more objects than queries, with extreme
    logits and boxes without area, and with the targets in another order. A loss of weight 0 is tried without a gradient.

    >>> check_loss(CrossEntropyLoss())
    []
    """
    try:
        alone = SetCriterion(HungarianMatcher(), [loss])
    except ValueError:  # its weight is 0: it is for the log
        alone = SetCriterion(HungarianMatcher(), [loss, _Nothing()])
    return check_criterion(alone)


def check_criterion(criterion: SetCriterion) -> list[str]:
    """What is wrong with a criterion, in words; an empty list is a pass.

    On batches with and without objects, with more objects than queries and with extreme values: finite losses, gradients
    that are finite and reach logits and boxes, the same loss when the targets of an image change places, and class
    losses that train a softmax over K+1.
    """
    learnable = [problem for loss in criterion.losses for problem in _learnable(loss)]
    cases = _cases(_classes_of(criterion))
    with _quiet():
        return [*learnable, *(problem for case in cases for problem in _try_criterion(criterion, case))]


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


def _try_cost(cost: Cost, case: _Case) -> Iterator[str]:
    name, predictions, targets = type(cost).__name__, case.predictions, case.targets
    try:
        with torch.no_grad():
            values = cost(predictions, targets)
            turned = cost(predictions, _reversed(targets)) if targets.counts else values
            other = cost(_elsewhere(predictions), targets)
    except _FAULTS as error:
        yield f"{name}, on {case}: {type(error).__name__}: {error}"
        return
    expected = (_LAYERS, len(targets.labels), _QUERIES)
    if tuple(values.shape) != expected:
        yield f"{name}, on {case}: the shape is {list(values.shape)}; a cost is [L, P, Q], here {list(expected)}"
        return
    if values.dtype != torch.float32:
        yield f"{name}, on {case}: the values are {values.dtype}; compute in fp32 (detr_ft.boxes.at_least_fp32)"
    if not values.isfinite().all():
        yield f"{name}, on {case}: {int((~values.isfinite()).sum())} of {values.numel()} values are NaN or infinite"
        return
    if not torch.allclose(turned[:, _reversal(targets)], values, rtol=1e-4, atol=1e-5):
        yield f"{name}, on {case}: the cost of a target depends on its place among the others"
    first = targets.image == 0
    if not torch.allclose(other[:, first], values[:, first], rtol=1e-4, atol=1e-5):
        yield f"{name}, on {case}: costs of image 0 depend on the queries of other images; index them by targets.image"


def _try_criterion(criterion: SetCriterion, case: _Case) -> Iterator[str]:
    try:
        loss, values = criterion(case.predictions, case.targets)
    except _FAULTS as error:
        yield f"on {case}: {type(error).__name__}: {error}"
        return
    for key, value in values.items():
        if not value.isfinite():
            yield f"on {case}: {key} is {value.item()}"
    if not loss.requires_grad:
        yield f"on {case}: no gradient reaches the predictions; is a term computed under no_grad or detached?"
        return
    trains = any(loss.weight and not isinstance(loss, _Nothing) for loss in criterion.losses)
    yield from _try_gradient(loss, case, expected=trains and sum(case.targets.counts) > 0)
    yield from _try_softmax(criterion, case)
    if max(case.targets.counts) <= _QUERIES and loss.isfinite():
        again = criterion(case.predictions, _reversed(case.targets))[0].item()
        if abs(again - loss.item()) > 1e-4 * max(1.0, abs(again)):
            yield f"on {case}: the loss depends on the order of the targets: {loss.item():.6g}, reversed {again:.6g}"


def _try_gradient(loss: Tensor, case: _Case, *, expected: bool) -> Iterator[str]:
    inputs = case.predictions.logits, case.predictions.boxes
    gradients = torch.autograd.grad(loss, inputs, allow_unused=True, retain_graph=True)
    for what, gradient in zip(("logits", "boxes"), gradients, strict=True):
        if gradient is not None and not gradient.isfinite().all():
            yield f"on {case}: the gradient of the {what} is NaN or infinite"
    if expected and not any(gradient is not None and gradient.any() for gradient in gradients):
        yield f"on {case}: the gradient is 0 everywhere"


def _try_softmax(criterion: SetCriterion, case: _Case) -> Iterator[str]:
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
                f"on {case}: {loss.name} changes when all K+1 logits of a query grow by the same number, so it does not "
                "train their softmax; transformers serves softmax scores, and would serve this model wrongly"
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


def _cases(classes: int) -> list[_Case]:
    batches = {
        "an ordinary batch": (2, 3, 1),
        "an image without objects": (2, 0, 1),
        "a batch without objects": (0, 0),
        "more objects than queries": (_QUERIES + 2, 1),
    }
    cases = [_Case(name, *_batch(counts, classes)) for name, counts in batches.items()]
    predictions, targets = _batch((2, 3, 1), classes)
    extreme = Predictions((predictions.logits.detach() * 40).requires_grad_(), _thin(predictions.boxes))
    cases.append(_Case("extreme logits and boxes without area", extreme, targets))
    same = predictions.boxes.detach().clone()
    same[:, 1, :3] = targets.boxes[2:5]
    cases.append(_Case("boxes that are exactly right", Predictions(predictions.logits, same.requires_grad_()), targets))
    return cases


def _batch(counts: Sequence[int], classes: int) -> tuple[Predictions, Targets]:
    generator = torch.Generator().manual_seed(0)
    shape = (_LAYERS, len(counts), _QUERIES)
    logits = torch.randn(*shape, classes + 1, generator=generator).requires_grad_()
    boxes = _boxes(*shape, generator=generator).requires_grad_()
    total = sum(counts)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    truth = _boxes(total, generator=generator)
    labels = torch.randint(classes, (total,), generator=generator)
    return Predictions(logits, boxes), Targets(labels, truth, image, tuple(counts))


def _boxes(*shape: int, generator: torch.Generator) -> Tensor:
    """Cxcywh boxes that lie within the image."""
    centre, size = torch.rand(2, *shape, 2, generator=generator)
    return torch.cat([0.3 + 0.4 * centre, 0.05 + 0.5 * size], -1)


def _thin(boxes: Tensor) -> Tensor:
    """The same boxes with every second one of no width."""
    thin = boxes.detach().clone()
    thin[..., ::2, 2] = 0
    return thin.requires_grad_()


def _elsewhere(predictions: Predictions) -> Predictions:
    """The same predictions for image 0, others for the rest."""
    logits, boxes = predictions.logits.detach().clone(), predictions.boxes.detach().clone()
    logits[:, 1:], boxes[:, 1:] = logits[:, 1:].flip(-1) + 1, boxes[:, 1:].flip(-2) * 0.9
    return Predictions(logits, boxes)


def _reversal(targets: Targets) -> list[int]:
    """For each target the place of the one that takes its turn when each image's targets are reversed."""
    starts = [sum(targets.counts[:index]) for index in range(len(targets.counts))]
    return [
        start + offset for start, count in zip(starts, targets.counts, strict=True) for offset in reversed(range(count))
    ]


def _reversed(targets: Targets) -> Targets:
    order = _reversal(targets)
    return replace(targets, labels=targets.labels[order], boxes=targets.boxes[order])
