"""Losses of classes, for logits whose sigmoid is the score of each class (there is no no-object).

Each logit is a binary classification. That of a matched query and its target's class is trained towards 1, or towards a
quality that depends on q, the IoU of its box without gradient; all others towards 0. All are sums over queries and
classes, divided by `num_boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import logsigmoid, softplus

from detr_ft.boxes import at_least_fp32, iou
from detr_ft.criterion.base import SIGMOID, QueryLoss
from detr_ft.structures import Matches, Predictions, Targets


class _Negative(NamedTuple):
    """The loss of a logit x towards 0: `scale p^gamma (-log(1-p))` with p by sigmoid.

    `constant` treats the factor `scale p^gamma` as a constant, without gradient.
    """

    scale: float
    gamma: float
    constant: bool = False

    def __call__(self, logits: Tensor) -> Tensor:
        """The loss of each logit, with gradient."""
        p = logits.sigmoid()
        factor = self.scale * _power(p.detach() if self.constant else p, self.gamma)
        return factor * softplus(logits)

    def sum_of_classes(self, logits: Tensor) -> Tensor:
        """The sum over the classes of each query, `[L, B, Q, K]` to `[L, B, Q]`, with gradient."""
        total: Tensor = _NegativeSum.apply(logits, self.scale, self.gamma, self.constant)
        return total


@dataclass(frozen=True)
class SigmoidFocalLoss(QueryLoss):
    """Sum of `-a (1-p_t)^gamma log p_t` over `num_boxes`: `[L]`.

    At the class of a matched query p_t is p and a is `alpha`; elsewhere they are 1 - p and 1 - `alpha`.
    Paper: Lin et al., ICCV 2017, equation 5; Zhu et al., ICLR 2021 (Deformable DETR).
    Relations: `SoftmaxFocalLoss` for models with no-object; `SigmoidVarifocalLoss` trains towards the IoU.
    When to choose: to continue the training of a Deformable, Conditional or DAB-DETR.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SigmoidFocalLoss()(*example("sigmoid"))
    tensor([0.0163])
    """

    weight: float = 2.0
    alpha: float = 0.25
    gamma: float = 2.0
    name: ClassVar[str] = "loss_focal"
    activations: ClassVar[frozenset[str]] = SIGMOID
    paper: ClassVar[str] = (
        "Lin et al., ICCV 2017, equation 5 (arXiv:1708.02002); Zhu et al., ICLR 2021 (arXiv:2010.04159)"
    )

    def __post_init__(self) -> None:
        _check_fraction(self, "alpha", self.alpha)
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        def of_pair(logits: Tensor, quality: Tensor) -> Tensor:
            return self.alpha * _power((-logits).sigmoid(), self.gamma) * softplus(-logits)

        return _per_query(predictions, targets, matches, _Negative(1 - self.alpha, self.gamma), of_pair)


@dataclass(frozen=True)
class SigmoidQualityFocalLoss(QueryLoss):
    """Sum of `|q - p|^beta` times the binary cross-entropy to q over `num_boxes`: `[L]`.

    q is 0 for all but the class of a matched query.
    Paper: Li et al., NeurIPS 2020 (quality focal loss).
    Relations: `SigmoidVarifocalLoss` weights pairs by q, `SigmoidMatchabilityLoss` by 1.
    When to choose: where scores must be calibrated to the quality of boxes.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SigmoidQualityFocalLoss()(*example("sigmoid"))
    tensor([0.0422])
    """

    weight: float = 1.0
    beta: float = 2.0
    name: ClassVar[str] = "loss_quality"
    activations: ClassVar[frozenset[str]] = SIGMOID
    paper: ClassVar[str] = "Li et al., NeurIPS 2020 (arXiv:2006.04388)"

    def __post_init__(self) -> None:
        _check_exponent(self, "beta", self.beta)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        def of_pair(logits: Tensor, quality: Tensor) -> Tensor:
            return _power((quality - logits.sigmoid()).abs(), self.beta) * _cross_entropy(logits, quality)

        return _per_query(predictions, targets, matches, _Negative(1.0, self.beta), of_pair)


@dataclass(frozen=True)
class SigmoidVarifocalLoss(QueryLoss):
    """Sum of the binary cross-entropy to q, weighted by q in pairs, over `num_boxes`: `[L]`.

    Elsewhere q is 0 and the weight `alpha p^gamma`, without gradient. A pair whose boxes do not overlap has no weight.
    Paper: Zhang et al., CVPR 2021, equation 2 (VarifocalNet); Zhao et al., CVPR 2024 (RT-DETR).
    Relations: `SigmoidMatchabilityLoss` trains pairs with poor boxes at full weight.
    When to choose: to continue the training of an RT-DETR or a D-FINE.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SigmoidVarifocalLoss()(*example("sigmoid"))
    tensor([0.3984])
    """

    weight: float = 1.0
    alpha: float = 0.75
    gamma: float = 2.0
    name: ClassVar[str] = "loss_varifocal"
    activations: ClassVar[frozenset[str]] = SIGMOID
    paper: ClassVar[str] = (
        "Zhang et al., CVPR 2021, equation 2 (arXiv:2008.13367); Zhao et al., CVPR 2024 (arXiv:2304.08069)"
    )

    def __post_init__(self) -> None:
        _check_fraction(self, "alpha", self.alpha)
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        def of_pair(logits: Tensor, quality: Tensor) -> Tensor:
            return quality * _cross_entropy(logits, quality)

        return _per_query(predictions, targets, matches, _Negative(self.alpha, self.gamma, constant=True), of_pair)


@dataclass(frozen=True)
class SigmoidMatchabilityLoss(QueryLoss):
    """Sum of the binary cross-entropy to `q^gamma`, at weight 1 in pairs, over `num_boxes`: `[L]`.

    Elsewhere q is 0 and the weight `alpha p^gamma`, without gradient.
    Paper: Huang et al., CVPR 2025 (matchability-aware loss of DEIM).
    Relations: `SigmoidVarifocalLoss` weights pairs by q, so that it hardly trains those with poor boxes.
    When to choose: to continue the training of a DEIMv2; for short training, where early boxes are poor.

    >>> from detr_ft.criterion.checking.cases import example
    >>> SigmoidMatchabilityLoss()(*example("sigmoid"))
    tensor([0.9310])
    """

    weight: float = 1.0
    gamma: float = 1.5
    alpha: float = 1.0
    name: ClassVar[str] = "loss_mal"
    activations: ClassVar[frozenset[str]] = SIGMOID
    paper: ClassVar[str] = "Huang et al., CVPR 2025 (arXiv:2412.04234)"

    def __post_init__(self) -> None:
        _check_fraction(self, "alpha", self.alpha)
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        def of_pair(logits: Tensor, quality: Tensor) -> Tensor:
            return _cross_entropy(logits, _power(quality, self.gamma))

        return _per_query(predictions, targets, matches, _Negative(self.alpha, self.gamma, constant=True), of_pair)


@dataclass(frozen=True)
class IoUAwareLoss(QueryLoss):
    """Sum of the binary cross-entropy to `t = p^alpha q^(1-alpha)` over `num_boxes`: `[L]`.

    t is at least 0.01 and has no gradient. Elsewhere it is 0 and the weight `p^gamma`.
    Paper: Cai et al., 2023 (IA-BCE of Align-DETR); Chen et al., 2024 (LW-DETR).
    Relations: with alpha 0 it trains towards the IoU alone, as `SigmoidMatchabilityLoss` with gamma 1.
    When to choose: to continue the training of an LW-DETR or RF-DETR.

    >>> from detr_ft.criterion.checking.cases import example
    >>> IoUAwareLoss()(*example("sigmoid"))
    tensor([0.7542])
    """

    weight: float = 1.0
    alpha: float = 0.25
    gamma: float = 2.0
    name: ClassVar[str] = "loss_ia_bce"
    activations: ClassVar[frozenset[str]] = SIGMOID
    paper: ClassVar[str] = "Cai et al., 2023 (arXiv:2304.07527); Chen et al., 2024 (arXiv:2406.03459)"

    def __post_init__(self) -> None:
        _check_fraction(self, "alpha", self.alpha)
        _check_exponent(self, "gamma", self.gamma)

    def per_query(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        def of_pair(logits: Tensor, quality: Tensor) -> Tensor:
            score = logits.detach().sigmoid() ** self.alpha * quality ** (1 - self.alpha)
            return _cross_entropy(logits, score.clamp(min=_MIN_TARGET))

        return _per_query(predictions, targets, matches, _Negative(1.0, self.gamma), of_pair)


_MIN_TARGET = 0.01  # of a pair, so that one whose box does not overlap is trained, too


def _per_query(
    predictions: Predictions,
    targets: Targets,
    matches: Matches,
    negative: _Negative,
    of_pair: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """The loss of all classes of each query over `num_boxes`: `[L, B, Q]`.

    `of_pair(logits [M], quality [M])` replaces the loss towards 0 at the class of each matched query. `quality` is the IoU
    of the pair without gradient.
    """
    logits = at_least_fp32(predictions.logits)
    labels = matches.target_values(targets.labels)
    of_class = matches.predicted(logits).gather(-1, labels[:, None])[:, 0]
    with torch.no_grad():
        quality = iou(matches.predicted(predictions.boxes), matches.target_values(targets.boxes))
    replaced = of_pair(of_class, quality) - negative(of_class)
    loss = matches.assign(torch.zeros_like(logits[..., 0]), replaced) + negative.sum_of_classes(logits)
    return loss / matches.num_boxes[:, None, None]


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The binary cross-entropy `-t log p - (1-t) log(1-p)`, p by sigmoid."""
    return -target * logsigmoid(logits) + (1 - target) * softplus(logits)


def _power(base: Tensor, exponent: float) -> Tensor:
    """`base^exponent` for a base of 0 or above; squares are several times faster than powers."""
    if exponent == 0:
        return torch.ones_like(base)
    return base * base if exponent == 2 else base**exponent


class _NegativeSum(torch.autograd.Function):
    """The sum of `_Negative` over classes, whose gradient is computed together with the value."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, scale: float, gamma: float, constant: bool) -> Tensor:
        p = logits.sigmoid()
        towards_0 = softplus(logits)  # -log(1-p)
        factor = _power(p, gamma).mul_(scale)
        value = (factor * towards_0).sum(-1)
        if ctx.needs_input_grad[0]:
            # d/dx: -log(1-p) has p, and p^gamma has gamma p^gamma (1-p).
            slope = p.clone() if constant or gamma == 0 else torch.addcmul(p, towards_0, 1 - p, value=gamma)
            ctx.save_for_backward(slope.mul_(factor))
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * gradient[..., None], None, None, None


def _check_exponent(loss: object, name: str, value: float) -> None:
    """Raise ValueError for exponents between 0 and 1, whose gradient has no limit near 0."""
    if value != 0 and not 1 <= value < math.inf:
        raise ValueError(f"{type(loss).__name__}: {name} must be 0, or at least 1 and finite, got {value}")


def _check_fraction(loss: object, name: str, value: float) -> None:
    """Raise ValueError for a value outside 0 to 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{type(loss).__name__}: {name} must be in 0 to 1, got {value}")
