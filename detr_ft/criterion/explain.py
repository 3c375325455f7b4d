"""Explanation of a criterion: costs by term, the matching, and the parts of the loss.

Start with `explain(criterion, predictions, targets)[image].layers[layer].pairs`. Training does not need this module,
and nothing in it has a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from detr_ft.criterion.assignment import Plan, hungarian
from detr_ft.criterion.base import Cost, Loss, Matcher, PairLoss, QueryLoss
from detr_ft.criterion.checking.effects import describe_changes, snapshot
from detr_ft.criterion.fault_finder import exceptions_only
from detr_ft.criterion.input_checks import CriterionError
from detr_ft.criterion.matchers import CostMatcher, LayerMatcher, MatcherSchedule
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True, eq=False)
class PairExplanation:
    """A matched query and target (its index within the image), with its costs and its part of the loss.

    `cost` and `terms` are weighted. `regret` is the additional cost of the best assignment without this pair; near 0
    the matching is nearly undecided. In that assignment the target gains the query `instead`, or none. `losses` are
    the weighted parts of this pair in the loss of the batch, by the name of the loss.
    """

    query: int
    target: int
    cost: float
    terms: dict[str, float]
    regret: float
    instead: int | None
    losses: dict[str, float]


@dataclass(frozen=True, eq=False)
class LayerExplanation:
    """An image at a layer: weighted costs `[T, Q]` in total and by term, pairs, and losses of no-object."""

    costs: Tensor
    terms: dict[str, Tensor]
    pairs: list[PairExplanation]
    no_object: dict[str, float]


@dataclass(frozen=True, eq=False)
class ImageExplanation:
    """An image of the batch, layer by layer."""

    layers: list[LayerExplanation]

    @property
    def partners(self) -> list[list[int | None]]:
        """`[T][L]`: the query of each target at each layer, the cheapest of several, or None."""
        targets = len(self.layers[0].costs)
        partners: list[list[int | None]] = [[None] * len(self.layers) for _ in range(targets)]
        for index, layer in enumerate(self.layers):
            for pair in sorted(layer.pairs, key=lambda pair: -pair.cost):
                partners[pair.target][index] = pair.query
        return partners

    @property
    def changes(self) -> list[int]:
        """The number of targets whose query differs from the layer before, from the second layer on: `[L-1]`."""
        return [
            sum(queries[index] != queries[index - 1] for queries in self.partners)
            for index in range(1, len(self.layers))
        ]


@torch.no_grad()
def explain(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> list[ImageExplanation]:
    """Explain each image and layer: costs, pairs with their regret, and parts of the loss.

    The parts of all pairs and of no-object, over all images and layers, add up to the loss if every loss is a sum
    over pairs or a QueryLoss, as all built-in ones are. Other losses are left out. Raises TypeError for a matcher
    without costs, and CriterionError for a term that changes its inputs in place, or raises SystemExit or another exception
    that is no `Exception`.

    >>> truth = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    >>> targets = Targets.from_labels(truth, torch.device("cpu"))
    >>> boxes = torch.tensor([[[[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]]])  # the second query is right
    >>> pair = explain(detr_criterion(), Predictions(torch.zeros(1, 1, 2, 2), boxes), targets)[0].layers[0].pairs[0]
    >>> pair.query, pair.instead, round(pair.regret, 2)
    (1, 0, 7.56)
    """
    before = snapshot(predictions, targets)
    with exceptions_only(criterion):
        explanations = _explanations(criterion, predictions, targets)
    changes = describe_changes(before, predictions, targets)
    if changes:
        raise CriterionError(f"a term of the criterion {changes}. check_criterion reports which")
    return explanations


def _explanations(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> list[ImageExplanation]:
    matches = criterion.matcher(predictions, targets)
    losses = _losses_of_queries(criterion, predictions, targets, matches)
    starts = np.cumsum([0, *targets.counts]).tolist()
    plans = [
        _plan_of(criterion.matcher, layer == predictions.num_layers - 1) for layer in range(predictions.num_layers)
    ]
    explanations: list[ImageExplanation] = []
    for image, count in enumerate(targets.counts):
        explanations.append(ImageExplanation([]))
        for layer, plan in enumerate(plans):
            own = slice(starts[image], starts[image] + count)
            terms = _weighted_costs(plan.costs, predictions.layers(layer, layer + 1), targets, own)
            total = sum(terms.values(), torch.zeros(count, predictions.num_queries))
            chosen = (matches.layer.eq(layer) & matches.image.eq(image)).nonzero()[:, 0]
            queries = matches.query[chosen].tolist()
            indices = (matches.target[chosen] - starts[image]).tolist()
            queries_of = {
                index: [query for query, other in zip(queries, indices, strict=True) if other == index]
                for index in indices
            }
            pairs = [
                PairExplanation(
                    query,
                    target,
                    float(total[target, query]),
                    {name: float(values[target, query]) for name, values in terms.items()},
                    *_regret(total, target, query, plan.copies, queries_of[target]),
                    {name: float(values[layer, image, query]) for name, values in losses.items()},
                )
                for query, target in zip(queries, indices, strict=True)
            ]
            free = [query for query in range(predictions.num_queries) if query not in queries]
            no_object = {name: float(values[layer, image, free].sum()) for name, values in losses.items()}
            explanations[-1].layers.append(LayerExplanation(total, terms, pairs, no_object))
    return explanations


def _plan_of(matcher: Matcher, last: bool) -> Plan:
    """The plan of a layer, either the last or an auxiliary one."""
    if isinstance(matcher, MatcherSchedule):
        return _plan_of(matcher.matchers[-1], last)
    if isinstance(matcher, LayerMatcher):
        return _plan_of(matcher.last if last else matcher.auxiliary, last)
    if isinstance(matcher, CostMatcher):
        return matcher.plan
    raise TypeError(f"{matcher!r} has no costs to explain. Use a CostMatcher")


def _weighted_costs(costs: Sequence[Cost], predictions: Predictions, targets: Targets, own: slice) -> dict[str, Tensor]:
    """The weighted costs `[T, Q]` of the targets of an image by name (`GIoUCost`, `GIoUCost 2`)."""
    terms: dict[str, Tensor] = {}
    for cost in costs:
        kind = type(cost).__name__
        number = sum(name.split(" ")[0] == kind for name in terms) + 1
        values = cost.weight * cost(predictions, targets)[0, own]
        terms[kind if number == 1 else f"{kind} {number}"] = values.float().cpu()
    return terms


def _regret(
    costs: Tensor, target: int, query: int, copies: int, queries_of_target: list[int]
) -> tuple[float, int | None]:
    """The additional cost of the best assignment without a pair, and the query that the target gains."""
    count, queries = costs.shape
    repeats = max(1, min(copies, queries // count))
    rows = np.tile(costs.double().numpy(), (repeats, 1))
    best = rows[_solve(rows)].sum()
    forbidden = 1e3 * (1 + np.abs(rows).sum())
    without_pair = rows.copy()
    without_pair[target::count, query] += forbidden
    chosen, columns = _solve(without_pair)
    cost = without_pair[chosen, columns].sum()
    if cost > forbidden / 2:
        return math.inf, None
    gained = [
        int(column)
        for row, column in zip(chosen, columns, strict=True)
        if row % count == target and column not in queries_of_target
    ]
    return float(cost - best), min(gained, key=lambda column: float(costs[target, column]), default=None)


def _solve(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = hungarian(costs[None])
    return rows[0], columns[0]


def _losses_of_queries(
    criterion: SetCriterion, predictions: Predictions, targets: Targets, matches: Matches
) -> dict[str, Tensor]:
    """The weighted part of each query in each loss that is a sum: `[L, B, Q]` by name."""
    parts = {}
    for loss in criterion.losses:
        if isinstance(loss, QueryLoss):
            values = loss.per_query(predictions, targets, matches)
        elif isinstance(loss, PairLoss):
            of_pairs = loss.per_pair(predictions, targets, matches)
            values = matches.assign(of_pairs.new_zeros(predictions.logits.shape[:3]), of_pairs)
        else:
            of_pairs = _loss_of_single_pairs(loss, predictions, targets, matches)
            if not torch.allclose(
                matches.per_layer(of_pairs), loss(predictions, targets, matches), rtol=1e-3, atol=1e-4
            ):
                continue
            values = matches.assign(of_pairs.new_zeros(predictions.logits.shape[:3]), of_pairs)
        parts[loss.name] = loss.weight * values.cpu()
    return parts


def _loss_of_single_pairs(loss: Loss, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
    """The value of a loss for each pair as the only pair: `[M]`."""
    values = [torch.zeros(0, device=predictions.device)]
    for pair in range(len(matches.layer)):
        own = slice(pair, pair + 1)
        alone = Matches(
            matches.layer[own], matches.image[own], matches.query[own], matches.target[own], matches.num_boxes
        )
        values.append(loss(predictions, targets, alone).float()[matches.layer[own]])
    return torch.cat(values)


@torch.no_grad()
def regrets(criterion: SetCriterion, predictions: Predictions, targets: Targets, max_pairs: int = 32) -> list[float]:
    """The regret of up to `max_pairs` pairs of the last layer, as in `PairExplanation`.

    Pairs without an alternative are left out. Empty for a matcher without costs.
    """
    try:
        plan = _plan_of(criterion.matcher, True)
    except TypeError:
        return []
    with exceptions_only(criterion):
        return _regrets(criterion, plan, predictions, targets, max_pairs)


def _regrets(
    criterion: SetCriterion, plan: Plan, predictions: Predictions, targets: Targets, max_pairs: int
) -> list[float]:
    last = predictions.layers(predictions.num_layers - 1, predictions.num_layers)
    matches = criterion.matcher(last, targets)
    pairs = list(zip(matches.query.tolist(), matches.target.tolist(), strict=True))
    starts = np.cumsum([0, *targets.counts]).tolist()
    values: list[float] = []
    for start, count in zip(starts, targets.counts, strict=False):
        if len(values) >= max_pairs or not count:
            continue
        own = slice(start, start + count)
        total = sum(_weighted_costs(plan.costs, last, targets, own).values(), torch.zeros(count, last.num_queries))
        for query, target in [pair for pair in pairs if start <= pair[1] < start + count][: max_pairs - len(values)]:
            queries_of_target = [column for column, row in pairs if row == target]
            regret, _ = _regret(total, target - start, query, plan.copies, queries_of_target)
            values += [] if math.isinf(regret) else [regret]
    return values
