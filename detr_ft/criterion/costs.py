"""Costs of matching a query with a target: they decide the matching and have no gradient.

A cost is a callable `(predictions, targets) -> [L, P, Q]` with a `weight`. Entry `[l, p, q]` is the cost of matching
target p with query q *of its own image* at layer l. The examples use `checking.cases.example`: one image, one object
of class 0, a query near it and one far from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import softplus

from detr_ft.boxes import at_least_fp32, ciou, diou, giou
from detr_ft.criterion.base import ANY_ACTIVATION, SIGMOID, SOFTMAX, Cost
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.structures import Predictions, Targets

# Entries of `[L, P, Q]` that are computed at a time.
_MAX_ENTRIES_ON_CPU, _MAX_ENTRIES_ON_GPU = 2**17, 2**24
_MIN_PROBABILITY = 1e-8  # smaller ones are raised to this, which makes their logarithm finite


@dataclass(frozen=True)
class ClassCost:
    """Minus the probability of the target's class, `-p(c)`: `[L, P, Q]` in -1 to 0.

    Paper: Carion et al., ECCV 2020, section 3.1. The probability has the same range as the box costs, its logarithm
    not.
    Relations: `LogClassCost` is the logarithm, `SoftmaxFocalCost` weights it by the error.
    When to choose: by default. Its range is limited, so that a good box can outweigh a wrong class.

    >>> from detr_ft.criterion.checking.cases import example
    >>> ClassCost()(*example()[:2])
    tensor([[[-0.7000, -0.1000]]])
    """

    weight: float = 1.0
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Carion et al., ECCV 2020, section 3.1 (arXiv:2005.12872)"

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return _log_probability(predictions, targets).exp_().neg_()


@dataclass(frozen=True)
class LogClassCost:
    """Minus the log-probability of the target's class, `-log p(c)`: `[L, P, Q]` of 0 and above.

    Paper: Stewart et al., CVPR 2016, who match by the loss itself.
    Relations: `CrossEntropyLoss` of the pair; `ClassCost` is its limited counterpart.
    When to choose: where the class must decide. One confident wrong class outweighs any box.

    >>> from detr_ft.criterion.checking.cases import example
    >>> LogClassCost()(*example()[:2])
    tensor([[[0.3567, 2.3026]]])
    """

    weight: float = 1.0
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Stewart et al., CVPR 2016 (arXiv:1506.04878)"

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -_log_probability(predictions, targets)


@dataclass(frozen=True)
class SoftmaxFocalCost:
    """Difference of the focal losses of predicting and not predicting the target's class: `[L, P, Q]`.

    Formula: `alpha (1-p)^gamma (-log p) - (1-alpha) p^gamma (-log(1-p))`, with p by softmax.
    Paper: Zhu et al., ICLR 2021 (matching of Deformable DETR), with Lin et al., ICCV 2017, equation 5. Both have p by
    sigmoid.
    Relations: `ClassCost` and `LogClassCost` depend on p alone, too, and order the queries of a target equally.
    When to choose: with `SoftmaxFocalLoss`. Clear cases differ more in cost than doubtful ones.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SoftmaxFocalCost()(*example()[:2])
    tensor([[[-0.4344,  0.4655]]])
    """

    weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    activations: ClassVar[frozenset[str]] = SOFTMAX
    paper: ClassVar[str] = (
        "Zhu et al., ICLR 2021 (arXiv:2010.04159); Lin et al., ICCV 2017, equation 5 (arXiv:1708.02002)"
    )

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        log_p = _log_probability(predictions, targets)
        complement = (-log_p.expm1()).clamp(min=_MIN_PROBABILITY)  # 1 - p
        positive = self.alpha * complement**self.gamma * -log_p
        return positive - (1 - self.alpha) * log_p.exp() ** self.gamma * -complement.log()


@dataclass(frozen=True)
class SigmoidFocalCost:
    """Difference of the focal losses of predicting and not predicting the target's class: `[L, P, Q]`.

    Formula: `alpha (1-p)^gamma (-log p) - (1-alpha) p^gamma (-log(1-p))`, with p by sigmoid.
    Paper: Zhu et al., ICLR 2021 (matching of Deformable DETR), with Lin et al., ICCV 2017, equation 5.
    Relations: `SoftmaxFocalCost` for models with no-object; `ClassCost` has a limited range.
    When to choose: with the class losses of models without no-object, as their authors do.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SigmoidFocalCost()(*example("sigmoid")[:2])
    tensor([[[-0.4344,  0.4655]]])
    """

    weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    activations: ClassVar[frozenset[str]] = SIGMOID
    paper: ClassVar[str] = (
        "Zhu et al., ICLR 2021 (arXiv:2010.04159); Lin et al., ICCV 2017, equation 5 (arXiv:1708.02002)"
    )

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        # Dimensions that are indexed by tensors come first: [P, L, Q].
        logits = predictions.logits.detach()[:, targets.image, :, targets.labels].transpose(0, 1)
        logits = at_least_fp32(logits)
        p = logits.sigmoid()
        positive = self.alpha * (1 - p) ** self.gamma * softplus(-logits)
        return positive - (1 - self.alpha) * p**self.gamma * softplus(logits)


@dataclass(frozen=True)
class BoxL1Cost:
    """L1 distance of cxcywh boxes in fractions of the image: `[L, P, Q]` of 0 and above.

    Paper: Carion et al., ECCV 2020, equation 1.
    Relations: `BoxL1Loss` of the pair. `GIoUCost` is relative to the size of the boxes, this is absolute.
    When to choose: beside an IoU cost. Alone it neglects errors of small boxes.

    >>> from detr_ft.criterion.checking.cases import example
    >>> BoxL1Cost()(*example()[:2])
    tensor([[[0.2000, 1.0000]]])
    """

    weight: float = 5.0
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Carion et al., ECCV 2020, equation 1 (arXiv:2005.12872)"

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        predicted, true = _boxes(predictions, targets)
        return (predicted - true).abs_().sum(-1).transpose(0, 1)


@dataclass(frozen=True)
class GIoUCost:
    """Minus the generalized IoU: `[L, P, Q]` in -1 to 1.

    Formula: `-IoU + (hull - union) / hull`, where the hull is the smallest box around both.
    Paper: Carion et al., ECCV 2020, equation 1; Rezatofighi et al., CVPR 2019.
    Relations: `GIoULoss` of the pair minus 1. `DIoUCost` and `CIoUCost` replace the area of the hull by its diagonal.
    When to choose: by default. It orders boxes that do not overlap, which IoU cannot.

    >>> from detr_ft.criterion.checking.cases import example
    >>> GIoUCost()(*example()[:2])
    tensor([[[-0.5000,  0.7143]]])
    """

    weight: float = 2.0
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = (
        "Carion et al., ECCV 2020, equation 1 (arXiv:2005.12872); Rezatofighi et al., CVPR 2019 (arXiv:1902.09630)"
    )

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -giou(*_boxes(predictions, targets)).transpose(0, 1)


@dataclass(frozen=True)
class DIoUCost:
    """Minus the distance IoU: `[L, P, Q]` in -1 to 1.

    Formula: `-IoU + d^2 / diagonal^2`, with the distance d of the centers and the diagonal of the hull.
    Paper: Zheng et al., AAAI 2020, equation 7.
    Relations: `DIoULoss` of the pair minus 1; `CIoUCost` adds the aspect ratio.
    When to choose: in crowds, where the center separates neighbors that overlap equally.

    >>> from detr_ft.criterion.checking.cases import example
    >>> DIoUCost()(*example()[:2])
    tensor([[[-0.5000,  0.3765]]])
    """

    weight: float = 2.0
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Zheng et al., AAAI 2020, equation 7 (arXiv:1911.08287)"

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -diou(*_boxes(predictions, targets)).transpose(0, 1)


@dataclass(frozen=True)
class CIoUCost:
    """Minus the complete IoU: `[L, P, Q]` in -1 to 2.

    Formula: that of `DIoUCost` plus `alpha v`, where v compares the aspect ratios (`boxes.ciou`).
    Paper: Zheng et al., AAAI 2020, equation 10.
    Relations: `CIoULoss` of the pair minus 1; `DIoUCost` where both boxes have one aspect ratio.
    When to choose: where the aspect ratio identifies an object.

    >>> from detr_ft.criterion.checking.cases import example
    >>> CIoUCost()(*example()[:2])
    tensor([[[-0.4968,  0.3782]]])
    """

    weight: float = 2.0
    activations: ClassVar[frozenset[str]] = ANY_ACTIVATION
    paper: ClassVar[str] = "Zheng et al., AAAI 2020, equation 10 (arXiv:1911.08287)"

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return -ciou(*_boxes(predictions, targets)).transpose(0, 1)


def total_cost(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets) -> Tensor:
    """The weighted sum of the costs: `[L, P, Q]`, in memory `[P, L, Q]`, without gradient.

    Computed in `image_blocks`. On a CPU intermediate values then stay in its cache: 1.1 to 1.6 times faster for
    batches of 8 to 32 images with 300 queries and 7 to 50 objects each. On a GPU they need less memory.
    """
    layers, queries = predictions.num_layers, predictions.num_queries
    entries = _MAX_ENTRIES_ON_CPU if predictions.device.type == "cpu" else _MAX_ENTRIES_ON_GPU
    with torch.no_grad():
        total = torch.zeros(len(targets.labels), layers, queries, device=predictions.device).transpose(0, 1)
        for indices, block in image_blocks(targets, entries // (layers * queries)):
            for cost in costs:
                values: object = cost(predictions, block)
                _check_shape(cost, values, (layers, len(block.labels), queries))
                total[:, indices].add_(cast(Tensor, values), alpha=cost.weight)
        return total


def image_blocks(targets: Targets, max_targets: int) -> Iterator[tuple[slice, Targets]]:
    """The targets in blocks of successive images, with their indices.

    A block has at most `max_targets` targets, or a single image. It is a batch of all images, of which only some have
    targets.
    """
    if len(targets.labels) <= max_targets:
        yield slice(None), targets
        return
    start, counts = 0, targets.counts
    for first, end in _image_runs(counts, max_targets):
        stop = start + sum(counts[first:end])
        indices, of_block = slice(start, stop), (0,) * first + counts[first:end] + (0,) * (len(counts) - end)
        labels, boxes, image = targets.labels[indices], targets.boxes[indices], targets.image[indices]
        yield indices, replace(targets, labels=labels, boxes=boxes, image=image, counts=of_block)
        start = stop


def _image_runs(counts: Sequence[int], max_targets: int) -> Iterator[tuple[int, int]]:
    """Runs of images, `first` to `end - 1`, whose counts sum to at most `max_targets`, or single images."""
    first, total = 0, 0
    for index, count in enumerate(counts):
        if total and total + count > max_targets:
            yield first, index
            first, total = index, 0
        total += count
    if total:
        yield first, len(counts)


def _check_shape(cost: Cost, values: object, shape: tuple[int, int, int]) -> None:
    if not isinstance(values, Tensor):
        raise CriterionError(f"{cost!r}: a cost must return a tensor [L, P, Q], got {type(values).__name__}")
    if values.shape != shape:
        raise CriterionError(f"{cost!r}: a cost must be [L, P, Q], here {list(shape)}, got {list(values.shape)}")


def _log_probability(predictions: Predictions, targets: Targets) -> Tensor:
    """`log p(c)` of each target's class for each query of its image: `[L, P, Q]`."""
    # Dimensions that are indexed by tensors come first: [P, L, Q].
    return predictions.log_probabilities[:, targets.image, :, targets.labels].transpose(0, 1)


def _boxes(predictions: Predictions, targets: Targets) -> tuple[Tensor, Tensor]:
    """Boxes of the queries of each target's image `[P, L, Q, 4]`, and of the targets `[P, 1, 1, 4]`.

    Both are cxcywh in at least fp32. Targets come first, because layers and queries of an image are contiguous in
    memory.
    """
    return targets.queries(predictions.cxcywh), at_least_fp32(targets.boxes)[:, None, None]
