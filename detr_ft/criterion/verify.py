"""Try a criterion, one's own terms included, on small nasty batches: seconds on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from detr_ft.criterion.checks import CriterionError
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Predictions, Targets

_LAYERS, _QUERIES, _CLASSES = 3, 7, 4
_BATCHES = {
    "an ordinary batch": (2, 3, 1),
    "an image without objects": (2, 0, 1),
    "a batch without objects": (0, 0),
    "more objects than queries": (_QUERIES + 2, 1),
}


def check_criterion(criterion: SetCriterion) -> list[str]:
    """What is wrong with a criterion, in words; an empty list is a pass.

    On batches with and without objects and with more objects than queries: finite values, gradients that are finite and
    reach logits and boxes, and the same loss when the targets of an image change places.
    """
    return [problem for name, counts in _BATCHES.items() for problem in _try(criterion, name, counts)]


def _try(criterion: SetCriterion, name: str, counts: tuple[int, ...]) -> Iterator[str]:
    predictions, targets = _batch(counts)
    try:
        loss, values = criterion(predictions, targets)
    except (CriterionError, RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        yield f"on {name} (targets {list(counts)}): {type(error).__name__}: {error}"
        return
    for key, value in values.items():
        if not value.isfinite():
            yield f"on {name} (targets {list(counts)}): {key} is {value.item()}"
    if not loss.requires_grad:
        yield f"on {name}: no gradient reaches the predictions; is a term computed under no_grad or detached?"
        return
    logits, boxes = torch.autograd.grad(loss, (predictions.logits, predictions.boxes), allow_unused=True)
    for what, gradient in (("logits", logits), ("boxes", boxes)):
        if gradient is not None and not gradient.isfinite().all():
            yield f"on {name} (targets {list(counts)}): the gradient of the {what} is NaN or infinite"
    if sum(counts) and (boxes is None or not boxes.any()) and (logits is None or not logits.any()):
        yield f"on {name}: the gradient is 0 everywhere"
    if max(counts) <= _QUERIES:
        again = criterion(predictions, _reversed(targets))[0].item()
        if abs(again - loss.item()) > 1e-4 * max(1.0, abs(again)):
            yield f"on {name}: the loss depends on the order of the targets: {loss.item():.6g}, reversed {again:.6g}"


def _batch(counts: tuple[int, ...]) -> tuple[Predictions, Targets]:
    generator = torch.Generator().manual_seed(0)
    shape = (_LAYERS, len(counts), _QUERIES)
    logits = torch.randn(*shape, _CLASSES + 1, generator=generator).requires_grad_()
    boxes = _boxes(*shape, generator=generator).requires_grad_()
    total = sum(counts)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    truth = _boxes(total, generator=generator)
    labels = torch.randint(_CLASSES, (total,), generator=generator)
    return Predictions(logits, boxes), Targets(labels, truth, image, counts)


def _boxes(*shape: int, generator: torch.Generator) -> torch.Tensor:
    """Cxcywh boxes that lie within the image."""
    centre, size = torch.rand(2, *shape, 2, generator=generator)
    return torch.cat([0.3 + 0.4 * centre, 0.05 + 0.5 * size], -1)


def _reversed(targets: Targets) -> Targets:
    starts = [sum(targets.counts[:index]) for index in range(len(targets.counts))]
    order = [
        start + offset for start, count in zip(starts, targets.counts, strict=True) for offset in reversed(range(count))
    ]
    return Targets(targets.labels[order], targets.boxes[order], targets.image, targets.counts, targets.num_boxes)
