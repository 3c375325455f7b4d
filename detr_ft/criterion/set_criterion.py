"""The criterion: a matcher and a list of losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detr_ft.criterion.base import Cost, Loss, Matcher, check_not_learnable, check_weight
from detr_ft.criterion.box_losses import BoxL1Loss, CardinalityError, GIoULoss
from detr_ft.criterion.class_losses import CrossEntropyLoss
from detr_ft.criterion.input_checks import CriterionError, check_inputs
from detr_ft.criterion.matchers import DETR_COSTS, CostMatcher, HungarianMatcher, LayerMatcher, MatcherSchedule
from detr_ft.structures import Predictions, Targets


@dataclass(frozen=True)
class SetCriterion:
    """`(predictions, targets) -> (loss, loss_dict)`: match, compute each loss, sum terms and layers.

    `loss_dict` has the unweighted value of every term under the keys of transformers: `loss_ce` for the last layer,
    `loss_ce_0 ..` for the auxiliary ones, or `loss_ce_NAME` for the `rows` of the predictions. Raises CriterionError
    where a prediction, a target or a cost is not finite, and TypeError or ValueError for an invalid matcher or loss.
    The loss is not checked, because that would synchronize the device at every step; see `find_fault`. Carion et al.,
    ECCV 2020, equation 2, with auxiliary losses after each decoder layer (section 3.2).

    >>> criterion = SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), BoxL1Loss(), GIoULoss()])
    >>> print(criterion)
    Matched by HungarianMatcher on 1 x ClassCost + 5 x BoxL1Cost + 2 x GIoUCost.
    Scored by 1 x CrossEntropyLoss (eos_coef 0.1) + 5 x BoxL1Loss + 2 x GIoULoss.
    >>> logits, boxes = torch.zeros(2, 1, 4, 4), torch.rand(2, 1, 4, 4)  # 2 layers, 1 image, 4 queries, 3 classes
    >>> truth = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    >>> loss, values = criterion(Predictions(logits, boxes), Targets.from_labels(truth, logits.device))
    >>> list(values)
    ['loss_ce', 'loss_ce_0', 'loss_bbox', 'loss_bbox_0', 'loss_giou', 'loss_giou_0']
    """

    matcher: Matcher
    losses: Sequence[Loss]

    def __post_init__(self) -> None:
        if isinstance(self.losses, Loss):
            raise TypeError(f"losses: must be a list of losses, got a single loss. Write [{self.losses!r}]")
        object.__setattr__(self, "losses", tuple(self.losses))
        matcher: object = self.matcher
        given: Sequence[object] = (matcher, *self.losses)
        for term in given:
            if isinstance(term, type):
                raise TypeError(f"{term.__name__} is a class, must be an object. Write {term.__name__}()")
        if isinstance(matcher, (Loss, Cost)) or not isinstance(matcher, Matcher):
            raise TypeError(f"{matcher!r} is no matcher. A matcher takes predictions and targets and returns Matches")
        terms: Sequence[Any] = self.losses
        for loss in terms:
            if not isinstance(loss, Loss):
                hint = "Give costs to the matcher" if isinstance(loss, Cost) else "A loss has a name and a weight"
                raise TypeError(f"{loss!r} is no loss. {hint}")
            check_not_learnable(loss)
            check_weight(loss)
        names = [loss.name for loss in self.losses]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"two losses have the name {', '.join(repeated)}. Give each its own, the key in the log")
        if not any(loss.weight for loss in self.losses):
            raise ValueError("a criterion must have at least one loss whose weight is not 0")

    def __call__(self, predictions: Predictions, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        check_inputs(predictions, targets)
        matches = self.matcher(predictions, targets)
        weighted: list[Tensor] = []
        values: dict[str, Tensor] = {}
        for loss in self.losses:
            per_layer: Any = loss(predictions, targets, matches)  # [L]
            check_value(loss, per_layer, predictions.num_layers)
            if loss.weight:
                weighted.append(loss.weight * per_layer)
            rows = sorted(zip(predictions.rows, per_layer.unbind(), strict=True), key=lambda row: row[0] != "")
            values |= {f"{loss.name}_{row}" if row else loss.name: value for row, value in rows}
        return torch.stack(weighted).sum(), values

    def at(self, epoch: int) -> SetCriterion:
        """The criterion of an epoch, counted from 0: the same unless its matcher is a MatcherSchedule."""
        return replace(self, matcher=self.matcher.at(epoch)) if isinstance(self.matcher, MatcherSchedule) else self

    def __str__(self) -> str:
        trained = [loss for loss in self.losses if loss.weight]
        logged = [type(loss).__name__ + _parameters(loss) for loss in self.losses if not loss.weight]
        sentences = [f"Matched by {_matcher_text(self.matcher)}.", f"Scored by {_sum_text(trained)}."]
        return "\n".join([*sentences, f"Only logged: {', '.join(logged)}."] if logged else sentences)


def check_value(loss: Loss, value: object, layers: int) -> None:
    """Raise CriterionError unless a loss returned a tensor `[L]`."""
    if not isinstance(value, Tensor):
        raise CriterionError(f"{loss!r}: a loss must return a tensor [L], got {type(value).__name__}")
    if value.shape != (layers,):
        raise CriterionError(
            f"{loss!r}: a loss must return one value for each layer, [{layers}], got {list(value.shape)}. "
            "Sum over pairs with matches.per_layer"
        )


def detr_criterion() -> SetCriterion:
    """The criterion of DETR, equal to the stock loss of transformers in every term and gradient."""
    return SetCriterion(
        matcher=HungarianMatcher(DETR_COSTS),
        losses=[CrossEntropyLoss(weight=1, eos_coef=0.1), BoxL1Loss(weight=5), GIoULoss(weight=2), CardinalityError()],
    )


def _matcher_text(matcher: Matcher) -> str:
    if isinstance(matcher, MatcherSchedule):
        ends = [f" up to epoch {start}" for start in matcher.starts[1:]]
        parts = zip(matcher.matchers, [*ends, ""], strict=True)
        return ", then by ".join(_matcher_text(part) + end for part, end in parts)
    if isinstance(matcher, LayerMatcher):
        return f"{_matcher_text(matcher.last)} in the last layer and {_matcher_text(matcher.auxiliary)} in the others"
    if isinstance(matcher, CostMatcher):
        return f"{type(matcher).__name__}{_parameters(matcher)} on {_sum_text(matcher.costs)}"
    return repr(matcher)


def _sum_text(terms: Sequence[Cost | Loss]) -> str:
    return " + ".join(f"{term.weight:g} x {type(term).__name__}{_parameters(term)}" for term in terms)


def _parameters(term: object) -> str:
    """The parameters of a term in brackets."""
    # Without weight and costs, which the caller adds, and without parameters that are None, or 0 as by default.
    if not is_dataclass(term):
        return ""
    shown = [
        f"{field.name} {getattr(term, field.name)}"
        for field in fields(term)
        if field.name not in {"weight", "costs"} and getattr(term, field.name) not in (None, _neutral(field.default))
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _neutral(default: object) -> object:
    return default if default is not MISSING and default == 0 else None
