"""Matchers assign queries to targets: `(predictions, targets) -> Matches`, without gradient.

Layers and images are solved from one cost tensor, which travels to the host once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from detr_ft.criterion.assignment import Plan, greedy, hungarian, solve
from detr_ft.criterion.base import Cost, Loss, Matcher, check_weight
from detr_ft.criterion.costs import BoxL1Cost, ClassCost, GIoUCost
from detr_ft.structures import Matches, Predictions, Targets

DETR_COSTS: tuple[Cost, ...] = (ClassCost(weight=1), BoxL1Cost(weight=5), GIoUCost(weight=2))


class CostMatcher(ABC):
    """A matcher that minimizes a sum of costs, by one plan for all layers.

    Two of them share one transfer to the host, and `explain` can report their costs.
    """

    costs: Sequence[Cost]

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", checked_costs(self.costs))

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return solve([self.plan] * predictions.num_layers, predictions, targets)

    @property
    @abstractmethod
    def plan(self) -> Plan:
        """Costs, solver and queries of a target for one layer."""


@dataclass(frozen=True)
class HungarianMatcher(CostMatcher):
    """The one-to-one matching of minimal cost, for every image and layer.

    An image with more targets than queries leaves the most expensive targets unmatched; a warning counts them.
    Paper: Carion et al., ECCV 2020, equation 1.
    Relations: `OneToManyMatcher` with k 1 is this matcher; `GreedyMatcher` costs as much or more.
    When to choose: by default, and always for the last layer.

    >>> from detr_ft.criterion.checking.cases import example
    >>> matches = HungarianMatcher()(*example()[:2])
    >>> matches.query, matches.target
    (tensor([0]), tensor([0]))
    """

    costs: Sequence[Cost] = DETR_COSTS
    paper: ClassVar[str] = "Carion et al., ECCV 2020, equation 1 (arXiv:2005.12872)"

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), hungarian)


@dataclass(frozen=True)
class OneToManyMatcher(CostMatcher):
    """The matching of minimal cost that gives each target `k` queries.

    A target has fewer where an image has too few queries for all. Box losses are divided by k times the number of
    targets.
    Paper: Jia et al., CVPR 2023 (hybrid matching).
    Relations: `HungarianMatcher` is k 1.
    When to choose: for auxiliary layers (`LayerMatcher`) or first epochs (`MatcherSchedule`). More matched queries
    train faster, but predict each object several times.

    >>> from detr_ft.criterion.checking.cases import example
    >>> sorted(OneToManyMatcher(k=2)(*example()[:2]).query.tolist())
    [0, 1]
    """

    k: int = 3
    costs: Sequence[Cost] = DETR_COSTS
    paper: ClassVar[str] = "Jia et al., CVPR 2023 (arXiv:2207.13080)"

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"OneToManyMatcher: k must be a whole number of at least 1, got {self.k}")
        super().__post_init__()

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), hungarian, self.k)


@dataclass(frozen=True)
class GreedyMatcher(CostMatcher):
    """The cheapest pair of each image, then the cheapest of the rest, and so on, one to one.

    Relations: of no paper; its cost is at least that of `HungarianMatcher`.
    When to choose: to measure the effect of the optimal matching.

    >>> from detr_ft.criterion.checking.cases import example
    >>> GreedyMatcher()(*example()[:2]).query
    tensor([0])
    """

    costs: Sequence[Cost] = DETR_COSTS
    paper: ClassVar[str] = ""

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), greedy)


@dataclass(frozen=True)
class LayerMatcher:
    """`last` for the last layer and `auxiliary` for the layers before it.

    Paper: Jia et al., CVPR 2023 (hybrid layer scheme).
    Relations: `MatcherSchedule` changes the matcher by epoch instead of layer.
    When to choose: with one-to-many `auxiliary` to train more queries of each object, and one-to-one `last`, whose
    predictions are used, against duplicates.

    >>> LayerMatcher(last=HungarianMatcher(), auxiliary=OneToManyMatcher(k=3)).auxiliary.k
    3
    """

    last: Matcher
    auxiliary: Matcher
    paper: ClassVar[str] = "Jia et al., CVPR 2023 (arXiv:2207.13080)"

    def __post_init__(self) -> None:
        if isinstance(self.last, MatcherSchedule) or isinstance(self.auxiliary, MatcherSchedule):
            raise ValueError(
                "LayerMatcher: must not contain a MatcherSchedule. Give the schedule a LayerMatcher instead"
            )

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        last = predictions.num_layers - 1
        if isinstance(self.last, CostMatcher) and isinstance(self.auxiliary, CostMatcher):
            return solve([self.auxiliary.plan] * last + [self.last.plan], predictions, targets)
        if last == 0:
            return self.last(predictions, targets)
        return Matches.join(
            [
                self.auxiliary(predictions.layers(0, last), targets),
                self.last(predictions.layers(last, last + 1), targets),
            ]
        )


@dataclass(frozen=True)
class MatcherSchedule:
    """`matchers[i]` from epoch `starts[i]` on; the first starts at epoch 0.

    `detr-ft train` follows it. Another loop sets `attached.criterion = criterion.at(epoch)` at each epoch. A call uses
    the last matcher, with which training ends.
    Paper: Jia et al., CVPR 2023 (hybrid epoch scheme).
    Relations: `LayerMatcher` changes the matcher by layer instead of epoch.
    When to choose: one-to-many first trains fast, one-to-one later removes duplicates.

    >>> schedule = MatcherSchedule([OneToManyMatcher(k=3), HungarianMatcher()], starts=[0, 20])
    >>> [type(schedule.at(epoch)).__name__ for epoch in (0, 19, 20)]
    ['OneToManyMatcher', 'OneToManyMatcher', 'HungarianMatcher']
    """

    matchers: Sequence[Matcher]
    starts: Sequence[int]
    paper: ClassVar[str] = "Jia et al., CVPR 2023 (arXiv:2207.13080)"

    def __post_init__(self) -> None:
        object.__setattr__(self, "matchers", tuple(self.matchers))
        object.__setattr__(self, "starts", tuple(self.starts))
        if any(isinstance(matcher, MatcherSchedule) for matcher in self.matchers):
            raise ValueError("MatcherSchedule: must not contain a MatcherSchedule. List all matchers in one schedule")
        if len(self.matchers) != len(self.starts) or not self.starts:
            raise ValueError(
                f"MatcherSchedule: must have as many starts as matchers, got {len(self.starts)} and {len(self.matchers)}"
            )
        if self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"MatcherSchedule: starts must be epochs that rise from 0, got {list(self.starts)}")

    def at(self, epoch: int) -> Matcher:
        """The matcher of an epoch, counted from 0."""
        return [matcher for matcher, start in zip(self.matchers, self.starts, strict=True) if start <= epoch][-1]

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return self.matchers[-1](predictions, targets)


def checked_costs(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """The costs as a tuple. Raise TypeError for other objects, ValueError where all weights are 0."""
    if isinstance(costs, type):
        raise TypeError(f"costs: must be a list of costs, got the class {costs.__name__}. Write [{costs.__name__}()]")
    if isinstance(costs, Cost):
        raise TypeError(f"costs: must be a list of costs, got a single cost. Write [{costs!r}]")
    terms: tuple[object, ...] = tuple(costs)
    for term in terms:
        if isinstance(term, type):
            raise TypeError(f"costs: {term.__name__} is a class, must be an object. Write {term.__name__}()")
        if isinstance(term, Loss) or not isinstance(term, Cost):
            raise TypeError(
                f"costs: {term!r} is no cost. A cost takes predictions and targets, has a weight and no name"
            )
        check_weight(term)
    if not any(cost.weight for cost in costs):
        raise ValueError("costs: must contain at least one whose weight is not 0")
    return tuple(costs)


def costs_of(matcher: Matcher) -> list[Cost]:
    """The costs of a matcher and of the matchers inside it, each once."""
    if isinstance(matcher, CostMatcher):
        return list(matcher.costs)
    inner: Sequence[Matcher] = ()
    if isinstance(matcher, LayerMatcher):
        inner = (matcher.last, matcher.auxiliary)
    if isinstance(matcher, MatcherSchedule):
        inner = matcher.matchers
    costs: list[Cost] = []
    for cost in (cost for part in inner for cost in costs_of(part)):
        if not any(cost is other or cost == other for other in costs):
            costs.append(cost)
    return costs
