"""Matchers: which queries answer for which targets. `(predictions, targets) -> Matches`, without gradient.

All layers and images are solved from one cost tensor that travels to the host once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from detr_ft.criterion.assignment import Plan, greedy, hungarian, solve
from detr_ft.criterion.base import Cost, Loss, Matcher
from detr_ft.criterion.costs import BoxL1Cost, ClassCost, GIoUCost
from detr_ft.structures import Matches, Predictions, Targets

DETR_COSTS: tuple[Cost, ...] = (ClassCost(weight=1), BoxL1Cost(weight=5), GIoUCost(weight=2))


class CostMatcher(ABC):
    """A matcher that decides by a sum of costs, by one plan at every layer.

    Several of them share one transfer to the host, and `explain` can say why they decided as they did.
    """

    costs: Sequence[Cost]

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", checked_costs(self.costs))

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return solve([self.plan] * predictions.num_layers, predictions, targets)

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """How a layer is matched."""


@dataclass(frozen=True)
class HungarianMatcher(CostMatcher):
    """The optimal one-to-one matching of every image at every layer. Carion et al., ECCV 2020, equation 1.

    With more targets than queries in an image the cheapest targets are matched and the surplus is counted in a warning.
    """

    costs: Sequence[Cost] = DETR_COSTS

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), hungarian)


@dataclass(frozen=True)
class OneToManyMatcher(CostMatcher):
    """The optimal matching that gives each target `k` queries; fewer where an image has too few queries for all.

    Jia et al., CVPR 2023 (hybrid matching): more positive queries train faster; the loss is divided by the number of
    pairs. Queries trained so answer several times for one object, so use it for auxiliary layers.
    """

    k: int = 3
    costs: Sequence[Cost] = DETR_COSTS

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"OneToManyMatcher needs a whole number k of at least 1, got {self.k}")
        super().__post_init__()

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), hungarian, self.k)


@dataclass(frozen=True)
class GreedyMatcher(CostMatcher):
    """Cheapest pair first, each target and each query once: for comparison with the optimal matching.

    Its total cost is never below that of `HungarianMatcher`; it is what matching without an assignment problem comes to.
    """

    costs: Sequence[Cost] = DETR_COSTS

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), greedy)


@dataclass(frozen=True)
class LayerMatcher:
    """`last` for the last layer, `auxiliary` for the decoder layers before it. Jia et al., CVPR 2023 (hybrid layer scheme).

    One-to-many in the auxiliary layers trains more queries for each object, and one-to-one in the last, which alone
    answers, keeps duplicates away. By costs, both are solved from one transfer.

    >>> LayerMatcher(last=HungarianMatcher(), auxiliary=OneToManyMatcher(k=3)).auxiliary.k
    3
    """

    last: Matcher
    auxiliary: Matcher

    def __post_init__(self) -> None:
        if isinstance(self.last, MatcherSchedule) or isinstance(self.auxiliary, MatcherSchedule):
            raise ValueError("a MatcherSchedule goes around a LayerMatcher, not into it: give it one for each turn")

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        final = predictions.num_layers - 1
        if isinstance(self.last, CostMatcher) and isinstance(self.auxiliary, CostMatcher):
            return solve([self.auxiliary.plan] * final + [self.last.plan], predictions, targets)
        if final == 0:
            return self.last(predictions, targets)
        return Matches.join(
            [
                self.auxiliary(predictions.layers(0, final), targets),
                self.last(predictions.layers(final, final + 1), targets),
            ]
        )


@dataclass(frozen=True)
class MatcherSchedule:
    """Matchers that take turns: `matchers[i]` from epoch `starts[i]` on, the first from epoch 0.

    One-to-many first and one-to-one later trains fast and ends without duplicates (the hybrid epoch scheme of Jia et al.,
    CVPR 2023). `detr-ft train` follows it. A loop of one's own asks for the turn at each epoch, as in
    `attached.criterion = criterion.at(epoch)`; called itself, it is the last one, with which training ends.

    >>> schedule = MatcherSchedule([OneToManyMatcher(k=3), HungarianMatcher()], starts=[0, 20])
    >>> [type(schedule.at(epoch)).__name__ for epoch in (0, 19, 20)]
    ['OneToManyMatcher', 'OneToManyMatcher', 'HungarianMatcher']
    """

    matchers: Sequence[Matcher]
    starts: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "matchers", tuple(self.matchers))
        object.__setattr__(self, "starts", tuple(self.starts))
        if any(isinstance(matcher, MatcherSchedule) for matcher in self.matchers):
            raise ValueError("a MatcherSchedule within a MatcherSchedule: put all turns into one")
        if len(self.matchers) != len(self.starts) or not self.starts:
            raise ValueError(f"{len(self.matchers)} matchers need as many starts; got {len(self.starts)}")
        if self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"starts must be epochs that rise from 0, got {list(self.starts)}")

    def at(self, epoch: int) -> Matcher:
        """The matcher of an epoch, counted from 0."""
        return [matcher for matcher, start in zip(self.matchers, self.starts, strict=True) if start <= epoch][-1]

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return self.matchers[-1](predictions, targets)


def is_weight(value: object) -> bool:
    """Whether a term may have this weight."""
    return isinstance(value, (int, float)) and 0 <= value < math.inf


def refuse_learnable(term: object) -> None:
    """Raise TypeError for a term with weights of its own that would have to be trained."""
    inside = term.parameters() if isinstance(term, nn.Module) else getattr(term, "__dict__", {}).values()
    if any(isinstance(value, nn.Parameter) for value in inside):
        raise TypeError(
            f"{type(term).__name__} has learnable weights: nothing would train them, and the saved model would lack them"
        )


def checked_costs(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """The costs as a tuple; raises for what is no cost, and where there is none or all weights are 0."""
    one: object = costs
    if isinstance(one, Cost):
        raise TypeError(f"{costs!r} is a cost by itself: give a list of costs")
    costs = tuple(costs)
    given: tuple[object, ...] = costs
    for cost in given:
        if isinstance(cost, Loss) or not isinstance(cost, Cost):
            raise TypeError(f"{cost!r} is no cost: a cost takes predictions and targets, and has a weight and no name")
        if not is_weight(cost.weight):
            raise ValueError(f"{cost!r}: the weight must be a finite number of 0 or above")
    if not any(cost.weight for cost in costs):
        raise ValueError("a matcher needs at least one cost whose weight is not 0")
    return costs
