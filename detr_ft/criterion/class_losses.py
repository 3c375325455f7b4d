"""Losses of classes. All train logits whose softmax over K+1 is the score: that is how transformers serves the model.

The unmatched queries are to say no-object. The last three take how well a matched box fits, its IoU q, into the score:
the class is to get a probability that grows with q and no-object the rest, so that a score ranks boxes by both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from detr_ft.boxes import at_least_fp32, iou
from detr_ft.criterion.base import QueryLoss
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True)
class CrossEntropyLoss(QueryLoss):
    """Weighted mean of `-log p(c)` over all queries of a layer, no-object weighted by `eos_coef`: `[L]`.

    Carion et al., ECCV 2020, equation 2 and section 3.1: no-object is down-weighted by 10 to account for class imbalance.
    `class_weights` holds a factor for each of the K classes. `label_smoothing` moves that share of the target evenly over
    all K+1 (Szegedy et al., CVPR 2016, section 7). Both as in `torch.nn.functional.cross_entropy`.
    """

    weight: float = 1.0
    eos_coef: float = 0.1
    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    name: ClassVar[str] = "loss_ce"

    def __post_init__(self) -> None:
        _check_weights(self)
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in 0 to 1, got {self.label_smoothing}")

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        classes = _classes(predictions, targets, matches)
        by_class = _weights(predictions, self.eos_coef, self.class_weights)
        weights = by_class[classes]
        loss = weights * -predictions.log_probability(classes)
        if self.label_smoothing:
            even = -(at_least_fp32(predictions.logits).log_softmax(-1) * by_class).mean(-1)
            loss = (1 - self.label_smoothing) * loss + self.label_smoothing * even
        return loss / _total_weight(weights, by_class, targets, matches)


@dataclass(frozen=True)
class FocalLoss(QueryLoss):
    """Weighted mean of `-(1 - p(c))^gamma log p(c)` over all queries of a layer: `[L]`. CrossEntropyLoss where gamma is 0.

    Lin et al., ICCV 2017, equation 4, on the softmax over K+1: queries that are right already weigh less, so the many
    that say no-object need less down-weighting by `eos_coef`.
    """

    weight: float = 1.0
    eos_coef: float = 0.25
    gamma: float = 2.0
    class_weights: tuple[float, ...] | None = None
    name: ClassVar[str] = "loss_focal"

    def __post_init__(self) -> None:
        _check_weights(self)
        _check_gamma(self.gamma, self)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        classes = _classes(predictions, targets, matches)
        by_class = _weights(predictions, self.eos_coef, self.class_weights)
        weights = by_class[classes]
        log_p = predictions.log_probability(classes)
        loss = weights * _rest(log_p) ** self.gamma * -log_p
        return loss / _total_weight(weights, by_class, targets, matches)


@dataclass(frozen=True)
class QualityFocalLoss(QueryLoss):
    """Sum of `d^beta` times the cross-entropy to the soft target (q, no-object 1-q), over `num_boxes`: `[L]`.

    Li et al., NeurIPS 2020 (quality focal loss), on the softmax: q is the IoU of the matched box, 0 for an
    unmatched query, and d how far the prediction is from the soft target, half the sum of the absolute differences
    over all K+1. With two classes that is the paper's `|q - p|`; with more, a wrong class can't hide in the rest.
    """

    weight: float = 1.0
    beta: float = 2.0
    name: ClassVar[str] = "loss_quality"

    def __post_init__(self) -> None:
        _check_gamma(self.beta, self)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        log_p, log_none = _log_probabilities(predictions, targets, matches)
        quality, matched = _quality(predictions, targets, matches)
        said, none = log_p.exp(), log_none.exp()
        apart = ((quality - said).abs() + (1 - quality - none).abs() + (1 - said - none)) / 2
        factor = torch.where(matched, apart, 1 - none).clamp(min=0) ** self.beta
        return factor * _soft(log_p, log_none, quality) / matches.num_boxes[:, None, None]


@dataclass(frozen=True)
class VarifocalLoss(QueryLoss):
    """Sum over pairs of q times the cross-entropy to (q, no-object 1-q), and over the others of a focal term: `[L]`.

    Zhang et al., CVPR 2021 (VarifocalNet), equation 2, on the softmax: pairs weigh by the IoU q of their box, unmatched
    queries by `alpha (1 - p(no-object))^gamma`. Over `num_boxes`.
    """

    weight: float = 1.0
    alpha: float = 0.75
    gamma: float = 2.0
    name: ClassVar[str] = "loss_varifocal"

    def __post_init__(self) -> None:
        _check_gamma(self.gamma, self)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        log_p, log_none = _log_probabilities(predictions, targets, matches)
        quality, matched = _quality(predictions, targets, matches)
        # The paper's negatives are those of q = 0, so a pair whose boxes don't meet is one.
        factor = torch.where(matched & (quality > 0), quality, self.alpha * _rest(log_none) ** self.gamma)
        return factor * _soft(log_p, log_none, quality) / matches.num_boxes[:, None, None]


@dataclass(frozen=True)
class MatchabilityLoss(QueryLoss):
    """Sum over pairs of the cross-entropy to `(q^gamma, no-object 1 - q^gamma)`, over the others a focal term: `[L]`.

    Huang et al., CVPR 2025 (DEIM, matchability-aware loss), on the softmax: unlike VarifocalLoss a pair with a poor box
    keeps its weight, so that early, rough boxes are still pushed. Unmatched queries weigh `(1 - p(no-object))^gamma`.
    Over `num_boxes`.
    """

    weight: float = 1.0
    gamma: float = 1.5
    name: ClassVar[str] = "loss_mal"

    def __post_init__(self) -> None:
        _check_gamma(self.gamma, self)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        log_p, log_none = _log_probabilities(predictions, targets, matches)
        quality, matched = _quality(predictions, targets, matches)
        factor = torch.where(matched, torch.ones_like(log_none), _rest(log_none) ** self.gamma)
        return factor * _soft(log_p, log_none, quality**self.gamma) / matches.num_boxes[:, None, None]


def _classes(predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
    """What each query is to say, no-object where it has no pair: `[L, B, Q]`."""
    classes = torch.full(predictions.logits.shape[:3], predictions.num_classes, device=predictions.device)
    return matches.assign(classes, matches.target_values(targets.labels))


def _weights(predictions: Predictions, eos_coef: float, class_weights: tuple[float, ...] | None) -> Tensor:
    """The weight of each class and, last, of no-object: `[K+1]`."""
    classes = predictions.num_classes
    if class_weights is not None and len(class_weights) != classes:
        raise CriterionError(f"class_weights has {len(class_weights)} values, and there are {classes} classes")
    if class_weights is not None:
        return torch.tensor([*class_weights, eos_coef]).to(predictions.device, non_blocking=True)
    weights = torch.ones(classes + 1, device=predictions.device)
    weights[classes:] = eos_coef
    return weights


def _total_weight(weights: Tensor, by_class: Tensor, targets: Targets, matches: Matches) -> Tensor:
    """What the queries of the whole step weigh, `[L, 1, 1]`, from the `weights [L, B, Q]` of this batch's.

    Of the rest of the step only the number of images and labels is known. That is enough while each target has the
    queries that it is to have, and the others say no-object; in images with too few queries it is an estimate.
    """
    total = weights.sum((1, 2))
    if targets.step is not None:
        _, images, queries = weights.shape
        here = targets.step.labels.new_zeros(len(by_class) - 1).index_add(
            0, targets.labels, torch.ones_like(targets.labels, dtype=targets.step.labels.dtype)
        )
        elsewhere = targets.step.labels - here
        copies = matches.num_boxes / targets.num_boxes  # queries of a target: [L]
        matched, free = copies * elsewhere.sum(), queries * (targets.step.images - images)
        total = total + copies * (by_class[:-1] * elsewhere).sum() + by_class[-1] * (free - matched)
    return total[:, None, None]


def _log_probabilities(predictions: Predictions, targets: Targets, matches: Matches) -> tuple[Tensor, Tensor]:
    """Log-probabilities of each query's own class and of no-object, one and the same where it has no pair: `[L, B, Q]`."""
    classes = _classes(predictions, targets, matches)
    none = torch.full_like(classes, predictions.num_classes)
    return predictions.log_probability(classes), predictions.log_probability(none)


def _quality(predictions: Predictions, targets: Targets, matches: Matches) -> tuple[Tensor, Tensor]:
    """The IoU of each matched query's box, 0 elsewhere, without gradient, and which queries are matched: `[L, B, Q]`."""
    with torch.no_grad():
        overlap = iou(matches.predicted(predictions.boxes), matches.target_values(targets.boxes))
        none = overlap.new_zeros(predictions.logits.shape[:3])
        matched = matches.assign(torch.zeros_like(none), torch.ones_like(overlap))
        return matches.assign(none, overlap), matched.bool()


def _soft(log_p: Tensor, log_none: Tensor, share: Tensor) -> Tensor:
    """Cross-entropy to the target that gives `share` to the class and the rest to no-object: `[L, B, Q]`."""
    return -(share * log_p + (1 - share) * log_none)


def _rest(log_p: Tensor) -> Tensor:
    """`1 - p`, exact for p near 1."""
    return -log_p.expm1()


def _check_weights(loss: CrossEntropyLoss | FocalLoss) -> None:
    """Make the class weights a tuple, and refuse weights with which a batch without objects has no mean."""
    if not 0 < loss.eos_coef < math.inf:
        raise ValueError(
            f"eos_coef must be a finite number above 0, got {loss.eos_coef}: a batch without objects would weigh nothing"
        )
    if loss.class_weights is not None:
        weights = tuple(float(value) for value in loss.class_weights)
        if not all(0 < value < math.inf for value in weights):
            raise ValueError(f"class_weights must be finite numbers above 0, got {list(weights)}")
        object.__setattr__(loss, "class_weights", weights)


def _check_gamma(gamma: float, loss: object) -> None:
    """Between 0 and 1 the gradient of `(1 - p)^gamma` grows without limit as p nears 1."""
    if gamma != 0 and not 1 <= gamma < math.inf:
        raise ValueError(f"{type(loss).__name__} needs an exponent of 0, or of 1 and more, got {gamma}")
