"""Losses of classes, for logits whose softmax over K+1 gives the scores (index K is no-object).

Unmatched queries are trained to predict no-object. The last three losses train a matched query to predict its class
with a probability that depends on q, the IoU of its box, and no-object with the rest: scores then rank boxes by both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from detr_ft.boxes import at_least_fp32, iou
from detr_ft.criterion.base import SOFTMAX, QueryLoss
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class CrossEntropyLoss(QueryLoss):
    """Weighted mean of `-log p(c)` over all queries of a layer, no-object weighted by `eos_coef`: `[L]`.

    `class_weights` has a factor for each of the K classes. `label_smoothing` moves that fraction of the target evenly
    to all K+1. Both as in `torch.nn.functional.cross_entropy`.
    Paper: Carion et al., ECCV 2020, equation 2 and section 3.1, which divides the weight of no-object by 10 for class
    balance; Szegedy et al., CVPR 2016, section 7 (label smoothing).
    Relations: `SoftmaxFocalLoss` with gamma 0 is this loss.
    When to choose: by default, and to continue the training of a DETR.

    >>> from detr_ft.criterion.checking.cases import example
    >>> CrossEntropyLoss()(*example())  # (-log 0.7 - 0.1 log 0.8) / 1.1
    tensor([0.3445])
    """

    weight: float = 1.0
    eos_coef: float = 0.1
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    name: ClassVar[str] = "loss_ce"
    activations: ClassVar[frozenset[str]] = SOFTMAX
    paper: ClassVar[str] = (
        "Carion et al., ECCV 2020, equation 2 (arXiv:2005.12872); "
        "Szegedy et al., CVPR 2016, section 7 (arXiv:1512.00567)"
    )

    def __post_init__(self) -> None:
        _check_weights(self)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"CrossEntropyLoss: label_smoothing must be in 0 to 1, got {self.label_smoothing}")

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        classes = _target_classes(predictions, targets, matches)
        by_class = _class_weights(predictions, self.eos_coef, self.class_weights)
        weights = by_class[classes]
        loss = weights * -predictions.log_probability(classes)
        if self.label_smoothing:
            even = -(at_least_fp32(predictions.logits).log_softmax(-1) * by_class).mean(-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        return loss / _total_weight(weights, by_class, targets, matches)


@dataclass(frozen=True)
class SoftmaxFocalLoss(QueryLoss):
    """Weighted mean of `-(1 - p(c))^gamma log p(c)` over all queries of a layer, p by softmax: `[L]`.

    `eos_coef` and `class_weights` as in `CrossEntropyLoss`.
    Paper: Lin et al., ICCV 2017, equation 4, with p by sigmoid.
    Relations: `CrossEntropyLoss` where gamma is 0. Correct queries weigh less, so that no-object needs less reduction
    by `eos_coef`.
    When to choose: for imbalanced classes, and where most queries are easy.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SoftmaxFocalLoss()(*example())
    tensor([0.0275])
    """

    weight: float = 1.0
    eos_coef: float = 0.25
    gamma: float = 2.0
    class_weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "loss_focal"
    activations: ClassVar[frozenset[str]] = SOFTMAX
    paper: ClassVar[str] = "Lin et al., ICCV 2017, equation 4 (arXiv:1708.02002)"

    def __post_init__(self) -> None:
        _check_weights(self)
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        classes = _target_classes(predictions, targets, matches)
        by_class = _class_weights(predictions, self.eos_coef, self.class_weights)
        weights = by_class[classes]
        log_p = predictions.log_probability(classes)
        loss = weights * _complement(log_p) ** self.gamma * -log_p
        return loss / _total_weight(weights, by_class, targets, matches)


@dataclass(frozen=True)
class SoftmaxQualityFocalLoss(QueryLoss):
    """Sum of `d^beta` times the cross-entropy to (class q, no-object 1-q), over `num_boxes`: `[L]`.

    q is 0 for unmatched queries. d is half the sum of absolute differences between prediction and target over all K+1:
    with two classes `|q - p|` as in the paper, with more it includes the wrong classes.
    Paper: Li et al., NeurIPS 2020 (quality focal loss), with p by sigmoid.
    Relations: `SoftmaxVarifocalLoss` weights pairs by q instead, `SoftmaxMatchabilityLoss` not at all.
    When to choose: where scores must be calibrated to the quality of boxes.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SoftmaxQualityFocalLoss()(*example())
    tensor([0.2217])
    """

    weight: float = 1.0
    beta: float = 2.0
    name: ClassVar[str] = "loss_quality"
    activations: ClassVar[frozenset[str]] = SOFTMAX
    paper: ClassVar[str] = "Li et al., NeurIPS 2020 (arXiv:2006.04388)"

    def __post_init__(self) -> None:
        _check_exponent(self, "beta", self.beta)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        log_p, log_none = _log_probabilities(predictions, targets, matches)
        quality, matched = _matched_iou(predictions, targets, matches)
        p, none = log_p.exp(), log_none.exp()
        difference = ((quality - p).abs() + (1 - quality - none).abs() + (1 - p - none)) / 2
        factor = torch.where(matched, difference, 1 - none).clamp(min=0) ** self.beta
        return factor * _soft_cross_entropy(log_p, log_none, quality) / matches.num_boxes[:, None, None]


@dataclass(frozen=True)
class SoftmaxVarifocalLoss(QueryLoss):
    """Sum of q times the cross-entropy to (class q, no-object 1-q) over `num_boxes`: `[L]`.

    Unmatched queries, and pairs whose boxes do not overlap, have the factor `alpha (1 - p(no-object))^gamma` instead
    of q.
    Paper: Zhang et al., CVPR 2021, equation 2 (VarifocalNet), with p by sigmoid.
    Relations: `SoftmaxMatchabilityLoss` leaves out the factor q, `SoftmaxQualityFocalLoss` weights all queries by their
    error.
    When to choose: to concentrate on pairs whose boxes are good already.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SoftmaxVarifocalLoss()(*example())
    tensor([0.6715])
    """

    weight: float = 1.0
    alpha: float = 0.75
    gamma: float = 2.0
    name: ClassVar[str] = "loss_varifocal"
    activations: ClassVar[frozenset[str]] = SOFTMAX
    paper: ClassVar[str] = "Zhang et al., CVPR 2021, equation 2 (arXiv:2008.13367)"

    def __post_init__(self) -> None:
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        log_p, log_none = _log_probabilities(predictions, targets, matches)
        quality, matched = _matched_iou(predictions, targets, matches)
        # In the paper q = 0 defines a negative, also for a pair.
        factor = torch.where(matched & (quality > 0), quality, self.alpha * _complement(log_none) ** self.gamma)
        return factor * _soft_cross_entropy(log_p, log_none, quality) / matches.num_boxes[:, None, None]


@dataclass(frozen=True)
class SoftmaxMatchabilityLoss(QueryLoss):
    """Sum of the cross-entropy to (class q^gamma, no-object 1 - q^gamma) over `num_boxes`: `[L]`.

    Pairs have the factor 1, unmatched queries `(1 - p(no-object))^gamma`.
    Paper: Huang et al., CVPR 2025 (matchability-aware loss of DEIM), with p by sigmoid.
    Relations: unlike `SoftmaxVarifocalLoss` it trains pairs with poor boxes at full weight.
    When to choose: for short training and one-to-many matching, where early boxes are poor.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SoftmaxMatchabilityLoss()(*example())
    tensor([1.6346])
    """

    weight: float = 1.0
    gamma: float = 1.5
    name: ClassVar[str] = "loss_mal"
    activations: ClassVar[frozenset[str]] = SOFTMAX
    paper: ClassVar[str] = "Huang et al., CVPR 2025 (arXiv:2412.04234)"

    def __post_init__(self) -> None:
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        log_p, log_none = _log_probabilities(predictions, targets, matches)
        quality, matched = _matched_iou(predictions, targets, matches)
        factor = torch.where(matched, torch.ones_like(log_none), _complement(log_none) ** self.gamma)
        loss = factor * _soft_cross_entropy(log_p, log_none, quality**self.gamma)
        return loss / matches.num_boxes[:, None, None]


def _target_classes(predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
    """The class that each query is trained to predict, no-object where it is not matched: `[L, B, Q]`."""
    classes = torch.full(predictions.logits.shape[:3], predictions.num_classes, device=predictions.device)
    return matches.assign(classes, matches.target_values(targets.labels))


def _class_weights(predictions: Predictions, eos_coef: float, class_weights: tuple[float, ...] | None) -> Tensor:
    """The weight of each class and, last, of no-object: `[K+1]`."""
    classes = predictions.num_classes
    if class_weights is not None and len(class_weights) != classes:
        raise CriterionError(
            f"class_weights has {len(class_weights)} values, but the model has {classes} classes. Give one for each class"
        )
    if class_weights is not None:
        return torch.tensor([*class_weights, eos_coef]).to(predictions.device, non_blocking=True)
    weights = torch.ones(classes + 1, device=predictions.device)
    weights[classes:] = eos_coef
    return weights


def _total_weight(weights: Tensor, by_class: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """The total weight of the queries of a step, `[L, 1, 1]`, from the `weights [L, B, Q]` of this batch.

    Of the other batches of the step only the numbers of images and labels are known. They give the exact sum while
    each target has as many queries as the matcher assigns; in images with too few queries it is an estimate.
    """
    total = weights.sum((1, 2))
    if targets.step is not None:
        _, images, queries = weights.shape
        here = targets.step.labels.new_zeros(len(by_class) - 1).index_add(
            0, targets.labels, torch.ones_like(targets.labels, dtype=targets.step.labels.dtype)
        )
        elsewhere = targets.step.labels - here
        copies = matches.num_boxes / targets.num_boxes  # queries of a target: [L]
        matched, all_queries = copies * elsewhere.sum(), queries * (targets.step.images - images)
        total = total + copies * (by_class[:-1] * elsewhere).sum() + by_class[-1] * (all_queries - matched)
    return total[:, None, None]


def _log_probabilities(predictions: Predictions, targets: Targets, matches: Matches) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the target class, no-object for unmatched queries, and of no-object."""
    classes = _target_classes(predictions, targets, matches)
    none = torch.full_like(classes, predictions.num_classes)
    return predictions.log_probability(classes), predictions.log_probability(none)


def _matched_iou(predictions: Predictions, targets: Targets, matches: Matches) -> tuple[Tensor, Tensor]:
    """The IoU of matched queries without gradient, 0 elsewhere, and their mask: twice `[L, B, Q]`."""
    with torch.no_grad():
        overlap = iou(matches.predicted(predictions.boxes), matches.target_values(targets.boxes))
        none = overlap.new_zeros(predictions.logits.shape[:3])
        matched = matches.assign(torch.zeros_like(none), torch.ones_like(overlap))
        return matches.assign(none, overlap), matched.bool()


def _soft_cross_entropy(log_p: Tensor, log_none: Tensor, quality: Tensor) -> Tensor:
    """Cross-entropy to the target (class `quality`, no-object `1 - quality`): `[L, B, Q]`."""
    return -(quality * log_p + (1 - quality) * log_none)


def _complement(log_p: Tensor) -> Tensor:
    """`1 - p`, exact for p near 1."""
    return -log_p.expm1()


def _check_weights(loss: CrossEntropyLoss | SoftmaxFocalLoss) -> None:
    """Convert the class weights to a tuple. Raise ValueError for weights whose mean may be undefined."""
    name = type(loss).__name__
    if not 0 < loss.eos_coef < math.inf:
        raise ValueError(
            f"{name}: eos_coef must be a finite number above 0, got {loss.eos_coef}; with 0 a batch without objects has no mean"
        )
    if loss.class_weights is not None:
        weights = tuple(float(value) for value in loss.class_weights)
        if not all(0 < value < math.inf for value in weights):
            raise ValueError(f"{name}: class_weights must be finite numbers above 0, got {list(weights)}")
        object.__setattr__(loss, "class_weights", weights)


def _check_exponent(loss: object, name: str, value: float) -> None:
    """Raise ValueError for exponents between 0 and 1."""
    # The gradient of (1 - p)^gamma would be unlimited near p = 1.
    if value != 0 and not 1 <= value < math.inf:
        raise ValueError(f"{type(loss).__name__}: {name} must be 0, or at least 1 and finite, got {value}")
