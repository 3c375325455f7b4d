"""Costs: what giving a query to a target would cost. They decide the matching and carry no gradient.

The contract: a cost is a callable `(predictions, targets) -> [L, P, Q]` with a `weight`; entry `[l, p, q]` is the cost of
giving target p the query q *of its own image* at layer l. Built-in terms are frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from detr_ft.boxes import at_least_fp32, ciou, diou, giou
from detr_ft.criterion.base import Cost
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.structures import Predictions, Targets

# How many costs `[L, P, Q]` are computed at a time.
_ON_A_CPU, _ELSEWHERE = 2**17, 2**24
_LEAST = 1e-8  # a probability below this counts as this: its logarithm stays finite


@dataclass(frozen=True)
class ClassCost:
    """Minus the probability of the target's class, `-p(c)`, softmax over K+1: `[L, P, Q]` in -1 to 0.

    Carion et al., ECCV 2020, section 3.1: the probability rather than its logarithm, so that the class term is
    commensurable with the box terms.
    """

    weight: float = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return _log_probability(predictions, targets).exp_().neg_()


@dataclass(frozen=True)
class LogClassCost:
    """Minus the logarithm of the probability of the target's class, `-log p(c)`: `[L, P, Q]`, 0 and above.

    What the class loss is, taken as a cost: Stewart et al., CVPR 2016, match so. Unlike `ClassCost` it has no upper
    limit, so that one confidently wrong class outweighs any box.
    """

    weight: float = 1.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -_log_probability(predictions, targets)


@dataclass(frozen=True)
class FocalCost:
    """What being the target's class costs more than not being it, both focal, p by softmax over K+1: `[L, P, Q]`.

    `alpha (1-p)^gamma (-log p) - (1-alpha) p^gamma (-log(1-p))`, as Deformable DETR matches (Zhu et al., ICLR 2021),
    with the focal terms of Lin et al., ICCV 2017, equation 5.
    """

    weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        log_p = _log_probability(predictions, targets)
        rest = (-log_p.expm1()).clamp(min=_LEAST)  # 1 - p
        positive = self.alpha * rest**self.gamma * -log_p
        return positive - (1 - self.alpha) * log_p.exp() ** self.gamma * -rest.log()


@dataclass(frozen=True)
class BoxL1Cost:
    """The L1 distance of cxcywh boxes in fractions of the image: `[L, P, Q]`. Carion et al., ECCV 2020, equation 1."""

    weight: float = 5.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        said, true = _boxes(predictions, targets)
        return (said - true).abs_().sum(-1).transpose(0, 1)


@dataclass(frozen=True)
class GIoUCost:
    """Minus the generalized IoU: `[L, P, Q]` in -1 to 1. Carion et al., ECCV 2020, equation 1; Rezatofighi et al., CVPR 2019."""

    weight: float = 2.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -giou(*_boxes(predictions, targets)).transpose(0, 1)


@dataclass(frozen=True)
class DIoUCost:
    """Minus the distance IoU: `[L, P, Q]` in -1 to 1. Zheng et al., AAAI 2020, equation 7."""

    weight: float = 2.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -diou(*_boxes(predictions, targets)).transpose(0, 1)


@dataclass(frozen=True)
class CIoUCost:
    """Minus the complete IoU: `[L, P, Q]` in -1 to 2. Zheng et al., AAAI 2020, equation 10."""

    weight: float = 2.0

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -ciou(*_boxes(predictions, targets)).transpose(0, 1)


def total_cost(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets) -> Tensor:
    """The weighted sum of the costs: `[L, P, Q]`, in memory `[P, L, Q]`, without gradient.

    Computed for a few images at a time, as a smaller batch whose other images have no targets: on a CPU what is at work
    then stays in its cache, and on a GPU memory stays bounded.
    """
    layers, queries = predictions.num_layers, predictions.num_queries
    most = (_ON_A_CPU if predictions.device.type == "cpu" else _ELSEWHERE) // (layers * queries)
    with torch.no_grad():
        total = torch.zeros(len(targets.labels), layers, queries, device=predictions.device).transpose(0, 1)
        for place, some in blocks(targets, most):
            for cost in costs:
                values: object = cost(predictions, some)
                _check_shape(cost, values, (layers, len(some.labels), queries))
                total[:, place].add_(cast(Tensor, values), alpha=cost.weight)
        return total


def blocks(targets: Targets, most: int) -> Iterator[tuple[slice, Targets]]:
    """The targets image by image, in blocks of up to `most` where an image has no more: their place, and they.

    A block is a batch of all images, of which only some have targets.
    """
    if len(targets.labels) <= most:
        yield slice(None), targets
        return
    start, counts = 0, targets.counts
    for first, last in _runs(counts, most):
        stop = start + sum(counts[first:last])
        here = (0,) * first + counts[first:last] + (0,) * (len(counts) - last)
        place = slice(start, stop)
        labels, boxes, image = targets.labels[place], targets.boxes[place], targets.image[place]
        yield place, replace(targets, labels=labels, boxes=boxes, image=image, counts=here)
        start = stop


def _runs(counts: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Successive runs of images, as first and one past the last, whose counts add up to at most `most`, or single ones."""
    first, held = 0, 0
    for index, count in enumerate(counts):
        if held and held + count > most:
            yield first, index
            first, held = index, 0
        held += count
    if held:
        yield first, len(counts)


def _check_shape(cost: Cost, values: object, shape: tuple[int, int, int]) -> None:
    if not isinstance(values, Tensor):
        raise CriterionError(f"the cost {cost!r} returned a {type(values).__name__}; a cost is a tensor [L, P, Q]")
    if values.shape != shape:
        raise CriterionError(
            f"the cost {cost!r} returned the shape {list(values.shape)}; a cost is [L, P, Q], here {list(shape)}"
        )


def _log_probability(predictions: Predictions, targets: Targets) -> Tensor:
    """`log p(c)` of each target's class at each query of its image, softmax over K+1: `[L, P, Q]`."""
    of_class = predictions.log_probabilities[
        :, targets.image, :, targets.labels
    ]  # [P, L, Q]: advanced indices come first
    return of_class.transpose(0, 1)


def _boxes(predictions: Predictions, targets: Targets) -> tuple[Tensor, Tensor]:
    """The queries of each target's image `[P, L, Q, 4]` and the targets `[P, 1, 1, 4]`, both cxcywh, at least fp32.

    Targets come first, since in memory an image's layers and queries lie together.
    """
    return targets.queries(predictions.cxcywh), at_least_fp32(targets.boxes)[:, None, None]
