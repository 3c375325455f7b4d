"""The criterion: a matcher and a list of losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from detr_ft.criterion.base import Cost, Loss, Matcher
from detr_ft.criterion.box_losses import BoxL1Loss, CardinalityError, GIoULoss
from detr_ft.criterion.class_losses import CrossEntropyLoss
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.criterion.matchers import (
    DETR_COSTS,
    CostMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    is_weight,
    refuse_learnable,
)
from detr_ft.structures import Predictions, Targets


@dataclass(frozen=True)
class SetCriterion:
    """`(predictions, targets) -> (loss, loss_dict)`: match, score each term, sum over terms and layers.

    `loss_dict` holds the unweighted value of every term under the keys that transformers writes: `loss_ce` for the last
    layer, `loss_ce_0 ..` for the auxiliary ones. Raises CriterionError where a prediction, a target or a cost is not
    finite. Of a loss that isn't, `find_fault` tells: to look at it here would wait for the device once more a step.
    Carion et al., ECCV 2020, equation 2, with auxiliary losses after each decoder layer (section 3.2).

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
        object.__setattr__(self, "losses", tuple(self.losses))
        given: object = self.matcher
        if isinstance(given, (Loss, Cost)) or not isinstance(given, Matcher):
            raise TypeError(f"{self.matcher!r} is no matcher")
        terms: Sequence[Any] = self.losses
        for loss in terms:
            if not isinstance(loss, Loss):
                hint = "; this is a cost, and costs go to the matcher" if isinstance(loss, Cost) else ""
                raise TypeError(f"{loss!r} is no loss: a loss has a name and a weight, and is called{hint}")
            refuse_learnable(loss)
            if not is_weight(loss.weight):
                raise ValueError(f"{loss!r}: the weight must be a finite number of 0 or above")
        names = [loss.name for loss in self.losses]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two losses share the name {', '.join(twice)}: each needs its own key in the log")
        if not any(loss.weight for loss in self.losses):
            raise ValueError("a criterion needs at least one loss whose weight is not 0")

    def __call__(self, predictions: Predictions, targets: Targets) -> tuple[Tensor, dict[str, Tensor]]:
        matches = self.matcher(predictions, targets)
        weighted: list[Tensor] = []
        values: dict[str, Tensor] = {}
        for loss in self.losses:
            per_layer: Any = loss(predictions, targets, matches)  # [L]
            if not isinstance(per_layer, Tensor):
                raise CriterionError(f"{loss!r} returned a {type(per_layer).__name__}; a loss returns a tensor [L]")
            if per_layer.shape != (predictions.num_layers,):
                raise CriterionError(
                    f"{loss!r} returned the shape {list(per_layer.shape)}; a loss returns one value for each decoder "
                    f"layer, [{predictions.num_layers}]"
                )
            if loss.weight:
                weighted.append(loss.weight * per_layer)
            rows = sorted(zip(predictions.rows, per_layer.unbind(), strict=True), key=lambda row: row[0] != "")
            values |= {f"{loss.name}_{row}" if row else loss.name: value for row, value in rows}
        return torch.stack(weighted).sum(), values

    def at(self, epoch: int) -> SetCriterion:
        """The criterion of an epoch, from 0 on: itself, unless its matcher is a MatcherSchedule."""
        return replace(self, matcher=self.matcher.at(epoch)) if isinstance(self.matcher, MatcherSchedule) else self

    def __str__(self) -> str:
        return in_words(self.matcher, self.losses)


def detr_criterion() -> SetCriterion:
    """DETR's own criterion, equal to the stock loss of transformers in every term and gradient."""
    return SetCriterion(
        matcher=HungarianMatcher(DETR_COSTS),
        losses=[CrossEntropyLoss(weight=1, eos_coef=0.1), BoxL1Loss(weight=5), GIoULoss(weight=2), CardinalityError()],
    )


def in_words(matcher: Matcher, losses: Sequence[Loss]) -> str:
    """Three sentences at most: what is matched by, what is scored by, and what is only logged."""
    trained = [loss for loss in losses if loss.weight]
    logged = [loss for loss in losses if not loss.weight]
    sentences = [f"Matched by {_matcher(matcher)}.", f"Scored by {_sum(trained)}."]
    if logged:
        sentences.append(f"Only logged: {', '.join(type(loss).__name__ + _parameters(loss) for loss in logged)}.")
    return "\n".join(sentences)


def _matcher(matcher: Matcher) -> str:
    if isinstance(matcher, MatcherSchedule):
        ends = [f" up to epoch {start}" for start in matcher.starts[1:]]
        turns = zip(matcher.matchers, [*ends, ""], strict=True)
        return ", then by ".join(_matcher(one) + end for one, end in turns)
    if isinstance(matcher, LayerMatcher):
        return f"{_matcher(matcher.last)} in the last layer and {_matcher(matcher.auxiliary)} in the others"
    if isinstance(matcher, CostMatcher):
        return f"{type(matcher).__name__}{_parameters(matcher)} on {_sum(matcher.costs)}"
    return repr(matcher)


def _sum(terms: Sequence[Cost | Loss]) -> str:
    return " + ".join(f"{term.weight:g} x {type(term).__name__}{_parameters(term)}" for term in terms)


def _parameters(term: object) -> str:
    """The parameters beside weight and costs that differ from `None`, in brackets."""
    if not is_dataclass(term):
        return ""
    shown = [
        f"{field.name} {getattr(term, field.name)}"
        for field in fields(term)
        if field.name not in {"weight", "costs"} and getattr(term, field.name) not in (None, _neutral(field.default))
    ]
    return f" ({', '.join(shown)})" if shown else ""


def _neutral(default: object) -> object:
    """A parameter that is 0 unless somebody asks for it, such as label smoothing, needs no mention at 0."""
    return default if default is not MISSING and default == 0 else None
