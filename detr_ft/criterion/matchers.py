"""Matchers: which queries answer for which targets. `(predictions, targets) -> Matches`, without gradient.

All layers and images are solved from one cost tensor that travels to the host once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from detr_ft.criterion.checks import CriterionError, defects, raise_for_defects
from detr_ft.criterion.costs import BoxL1Cost, ClassCost, Cost, GIoUCost, total_cost
from detr_ft.criterion.solvers import Solver, brute_force, greedy, hungarian
from detr_ft.structures import Matches, Predictions, Targets

logger = logging.getLogger(__name__)

_TRIED = 7  # queries: 5,040 orders

DETR_COSTS: tuple[Cost, ...] = (ClassCost(weight=1), BoxL1Cost(weight=5), GIoUCost(weight=2))


@runtime_checkable
class Matcher(Protocol):
    """A callable `(predictions, targets) -> Matches`."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        """The pairs of queries and targets that are trained together."""


@runtime_checkable
class CostBased(Protocol):
    """A matcher that decides by a list of costs."""

    @property
    def costs(self) -> Sequence[Cost]:
        """The terms of the sum that is minimised."""


@dataclass(frozen=True)
class HungarianMatcher:
    """The optimal one-to-one matching of every image at every layer. Carion et al., ECCV 2020, equation 1.

    With more targets than queries in an image the cheapest targets are matched and the surplus is counted in a warning.
    """

    costs: Sequence[Cost] = DETR_COSTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", checked_costs(self.costs))

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return solve(tuple(self.costs), predictions, targets, hungarian)


@dataclass(frozen=True)
class OneToManyMatcher:
    """The optimal matching that gives each target `k` queries; fewer where an image has too few queries for all.

    Jia et al., CVPR 2023 (hybrid matching): more positive queries train faster; the loss is divided by the number of
    pairs. Queries trained so answer several times for one object, so use it for auxiliary layers.
    """

    k: int = 3
    costs: Sequence[Cost] = DETR_COSTS

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"OneToManyMatcher needs k of at least 1, got {self.k}")
        object.__setattr__(self, "costs", checked_costs(self.costs))

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return solve(tuple(self.costs), predictions, targets, hungarian, copies=self.k)


@dataclass(frozen=True)
class GreedyMatcher:
    """Cheapest pair first, each target and each query once: for comparison with the optimal matching.

    Its total cost is never below that of `HungarianMatcher`; it is what matching without an assignment problem comes to.
    """

    costs: Sequence[Cost] = DETR_COSTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", checked_costs(self.costs))

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return solve(tuple(self.costs), predictions, targets, greedy)


@dataclass(frozen=True)
class BruteForceMatcher:
    """The cheapest of all one-to-one matchings, found by trying each: the proof of the others, for up to 7 queries.

    Raises ValueError for more.
    """

    costs: Sequence[Cost] = DETR_COSTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "costs", checked_costs(self.costs))

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        if predictions.num_queries > _TRIED:
            raise ValueError(
                f"BruteForceMatcher tries all orders of up to {_TRIED} queries, not {predictions.num_queries}"
            )
        return solve(tuple(self.costs), predictions, targets, brute_force)


@dataclass(frozen=True)
class LayerMatcher:
    """One matcher for the last layer, another for the auxiliary layers before it (hybrid matching)."""

    last: Matcher
    auxiliary: Matcher

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        final = predictions.num_layers - 1
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
    CVPR 2023). Whoever trains asks `at(epoch)`; called itself, it is the last one, with which training ends.
    """

    matchers: Sequence[Matcher]
    starts: Sequence[int]

    def __post_init__(self) -> None:
        object.__setattr__(self, "matchers", tuple(self.matchers))
        object.__setattr__(self, "starts", tuple(self.starts))
        if len(self.matchers) != len(self.starts) or not self.starts:
            raise ValueError(f"{len(self.matchers)} matchers need as many starts; got {len(self.starts)}")
        if self.starts[0] != 0 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError(f"starts must be epochs that rise from 0, got {list(self.starts)}")

    def at(self, epoch: int) -> Matcher:
        """The matcher of an epoch, counted from 0."""
        return [matcher for matcher, start in zip(self.matchers, self.starts, strict=True) if start <= epoch][-1]

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return self.matchers[-1](predictions, targets)


def checked_costs(costs: Sequence[Cost]) -> tuple[Cost, ...]:
    """The costs as a tuple; raises where there is none, or where all weights are 0."""
    costs = tuple(costs)
    if not any(cost.weight for cost in costs):
        raise ValueError("a matcher needs at least one cost whose weight is not 0")
    return costs


@torch.no_grad()
def solve(
    costs: tuple[Cost, ...], predictions: Predictions, targets: Targets, solver: Solver, copies: int = 1
) -> Matches:
    """The solver's assignment, each target up to `copies` times, for every layer and image at once."""
    safe = Targets(
        targets.labels.clamp(0, predictions.num_classes - 1),
        targets.boxes,
        targets.image,
        targets.counts,
        targets.num_boxes,
    )  # a label out of range is reported below, by name, and must not trip the device first
    cost = total_cost(costs, predictions, safe)
    host = torch.cat([cost.flatten(), defects(predictions, targets)]).cpu().numpy()
    raise_for_defects([int(count) for count in host[-4:]], predictions, targets)
    matrix = host[:-4].reshape(cost.shape)
    if not np.isfinite(matrix).all():
        raise CriterionError(_name_bad_cost(costs, predictions, targets))
    pairs, pairs_per_layer = _assign(matrix, targets.counts, predictions.num_queries, solver, copies)
    index = torch.from_numpy(pairs).to(predictions.device, non_blocking=True)
    factor = max(pairs_per_layer, 1) / max(min(sum(targets.counts), pairs_per_layer), 1)
    num_boxes = torch.full((predictions.num_layers,), targets.num_boxes * factor, device=predictions.device)
    return Matches(index[0], index[1], index[2], index[3], num_boxes)


def _assign(
    matrix: np.ndarray, counts: tuple[int, ...], queries: int, solver: Solver, copies: int
) -> tuple[np.ndarray, int]:
    """Rows layer, image, query, target of every pair, `[4, M]`, and the number of pairs in a layer."""
    blocks = [np.zeros((4, 0), dtype=np.int64)]
    ends = np.cumsum(counts)
    for layer in range(matrix.shape[0]):
        for image, (count, end) in enumerate(zip(counts, ends, strict=True)):
            if count == 0:
                continue
            repeats = max(1, min(copies, queries // count))
            rows = matrix[layer, end - count : end]
            target, query = solver(rows if repeats == 1 else np.tile(rows, (repeats, 1)))
            target = end - count + target % count
            blocks.append(np.stack([np.full_like(query, layer), np.full_like(query, image), query, target]))
    surplus = sum(max(0, count - queries) for count in counts)
    if surplus:
        _warn_of_surplus(queries, f"{surplus} of {sum(counts)} targets, up to {max(counts)} an image")
    pairs = np.concatenate(blocks, axis=1)
    return pairs, pairs.shape[1] // max(matrix.shape[0], 1)


_warned: set[int] = set()


def _warn_of_surplus(queries: int, what: str) -> None:
    """Say it once for each number of queries: it would come again at every epoch."""
    if queries not in _warned:
        _warned.add(queries)
        logger.warning("a batch has more objects than the model's %d queries: %s, go unmatched", queries, what)


def _name_bad_cost(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets) -> str:
    for cost in costs:
        bad = ~cost(predictions, targets).isfinite()
        if bad.any():
            layer, target, query = bad.nonzero()[0].tolist()
            return (
                f"the cost {cost!r} is NaN or infinite at layer {layer}, target {target} (image "
                f"{int(targets.image[target])} of the batch), query {query}; predictions and targets are finite"
            )
    return "the weighted sum of the costs overflows: lower their weights"


def pairs_as_lists(matches: Matches) -> list[tuple[int, int, int, int]]:
    """The pairs `(layer, image, query, target)` on the host, sorted: for tests and explanations."""
    stacked: Tensor = torch.stack([matches.layer, matches.image, matches.query, matches.target], 1)
    return sorted((int(a), int(b), int(c), int(d)) for a, b, c, d in stacked.tolist())
