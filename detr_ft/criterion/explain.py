"""Why a criterion decided as it did: costs by term, the matching, what each pair was worth, the loss taken apart.

`explain(criterion, predictions, targets)[image].layers[layer].pairs` is where to start. Nothing here is needed to train,
and nothing carries a gradient.
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
from detr_ft.criterion.matchers import CostMatcher, LayerMatcher, MatcherSchedule
from detr_ft.criterion.set_criterion import SetCriterion
from detr_ft.structures import Matches, Predictions, Targets


@dataclass(frozen=True, eq=False)
class PairExplanation:
    """A query and a target (its place within its image): why together, and what it adds to the loss.

    `cost` and its `terms` are weighted. `regret` is how much dearer the best assignment without this pair is: near 0, the
    matching is a toss-up. In that assignment the target gains the query `instead`, or none. `shares` are this pair's
    weighted parts of the batch's loss, by the loss's name.
    """

    query: int
    target: int
    cost: float
    terms: dict[str, float]
    regret: float
    instead: int | None
    shares: dict[str, float]


@dataclass(frozen=True, eq=False)
class LayerExplanation:
    """One image at one layer: `costs [T, Q]` whole and by term, weighted; the pairs; what no-object adds to the loss."""

    costs: Tensor
    terms: dict[str, Tensor]
    pairs: list[PairExplanation]
    no_object: dict[str, float]


@dataclass(frozen=True, eq=False)
class ImageExplanation:
    """One image of the batch: its layers, and for each target the query it had at each layer (None: no pair)."""

    layers: list[LayerExplanation]

    @property
    def partners(self) -> list[list[int | None]]:
        """`[T][L]`: the query of each target at each layer; the cheapest where it has several."""
        targets = len(self.layers[0].costs)
        found: list[list[int | None]] = [[None] * len(self.layers) for _ in range(targets)]
        for index, layer in enumerate(self.layers):
            for pair in sorted(layer.pairs, key=lambda pair: -pair.cost):
                found[pair.target][index] = pair.query
        return found

    @property
    def changes(self) -> list[int]:
        """How many targets have another query than at the layer before, for the layers from the second on: `[L-1]`."""
        return [
            sum(queries[index] != queries[index - 1] for queries in self.partners)
            for index in range(1, len(self.layers))
        ]


@torch.no_grad()
def explain(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> list[ImageExplanation]:
    """For each image and layer: the cost matrix whole and by term, the pairs with their regret, the loss taken apart.

    The shares of all pairs and of no-object, over all images and layers, add up to the loss, as long as every loss is a
    sum over pairs, or over queries as a QueryLoss (all built-in ones are one or the other); others are left out. Raises TypeError for a matcher without costs.

    >>> truth = [{"class_labels": torch.tensor([0]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}]
    >>> targets = Targets.from_labels(truth, torch.device("cpu"))
    >>> said = torch.tensor([[[[0.1, 0.1, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]]]])  # the second query is right
    >>> pair = explain(detr_criterion(), Predictions(torch.zeros(1, 1, 2, 2), said), targets)[0].layers[0].pairs[0]
    >>> pair.query, pair.instead, round(pair.regret, 2)
    (1, 0, 7.56)
    """
    matches = criterion.matcher(predictions, targets)
    shares = _shares(criterion, predictions, targets, matches)
    starts = np.cumsum([0, *targets.counts]).tolist()
    plans = [
        _plan_of(criterion.matcher, layer == predictions.num_layers - 1) for layer in range(predictions.num_layers)
    ]
    explained: list[ImageExplanation] = []
    for image, count in enumerate(targets.counts):
        explained.append(ImageExplanation([]))
        for layer, plan in enumerate(plans):
            own = slice(starts[image], starts[image] + count)
            terms = _terms(plan.costs, predictions.layers(layer, layer + 1), targets, own)
            whole = sum(terms.values(), torch.zeros(count, predictions.num_queries))
            chosen = (matches.layer.eq(layer) & matches.image.eq(image)).nonzero()[:, 0]
            queries = matches.query[chosen].tolist()
            places = (matches.target[chosen] - starts[image]).tolist()
            held = {
                place: [query for query, other in zip(queries, places, strict=True) if other == place]
                for place in places
            }
            pairs = [
                PairExplanation(
                    query,
                    target,
                    float(whole[target, query]),
                    {name: float(values[target, query]) for name, values in terms.items()},
                    *_regret(whole, target, query, plan.copies, held[target]),
                    {name: float(values[layer, image, query]) for name, values in shares.items()},
                )
                for query, target in zip(queries, places, strict=True)
            ]
            free = [query for query in range(predictions.num_queries) if query not in queries]
            rest = {name: float(values[layer, image, free].sum()) for name, values in shares.items()}
            explained[-1].layers.append(LayerExplanation(whole, terms, pairs, rest))
    return explained


def _plan_of(matcher: Matcher, last: bool) -> Plan:
    """The plan by which a layer, the last or an auxiliary one, is matched."""
    if isinstance(matcher, MatcherSchedule):
        return _plan_of(matcher.matchers[-1], last)
    if isinstance(matcher, LayerMatcher):
        return _plan_of(matcher.last if last else matcher.auxiliary, last)
    if isinstance(matcher, CostMatcher):
        return matcher.plan
    raise TypeError(f"{matcher!r} is no CostMatcher, so there are no costs to explain it by")


def _terms(costs: Sequence[Cost], predictions: Predictions, targets: Targets, own: slice) -> dict[str, Tensor]:
    """The weighted costs `[T, Q]` of one image's targets by name; a second term of a kind is called `Kind 2`."""
    terms: dict[str, Tensor] = {}
    for cost in costs:
        kind = type(cost).__name__
        number = sum(name.split(" ")[0] == kind for name in terms) + 1
        values = cost.weight * cost(predictions, targets)[0, own]
        terms[kind if number == 1 else f"{kind} {number}"] = values.float().cpu()
    return terms


def _regret(costs: Tensor, target: int, query: int, copies: int, held: list[int]) -> tuple[float, int | None]:
    """How much dearer the best assignment without this pair is, and the query that the target gains in it."""
    count, queries = costs.shape
    repeats = max(1, min(copies, queries // count))
    rows = np.tile(costs.double().numpy(), (repeats, 1))
    best = rows[_solve(rows)].sum()
    forbidden = 1e3 * (1 + np.abs(rows).sum())
    others = rows.copy()
    others[target::count, query] += forbidden
    chosen, columns = _solve(others)
    without = others[chosen, columns].sum()
    if without > forbidden / 2:
        return math.inf, None
    mine = [
        int(column) for row, column in zip(chosen, columns, strict=True) if row % count == target and column not in held
    ]
    return float(without - best), min(mine, key=lambda column: float(costs[target, column]), default=None)


def _solve(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = hungarian(costs[None])
    return rows[0], columns[0]


def _shares(criterion: SetCriterion, predictions: Predictions, targets: Targets, matches: Matches) -> dict[str, Tensor]:
    """The weighted part of each query in each loss that can be taken apart: `[L, B, Q]` by name."""
    shares = {}
    for loss in criterion.losses:
        if isinstance(loss, QueryLoss):
            values = loss.per_query(predictions, targets, matches)
        elif isinstance(loss, PairLoss):
            of_pairs = loss.per_pair(predictions, targets, matches)
            values = matches.assign(of_pairs.new_zeros(predictions.logits.shape[:3]), of_pairs)
        else:
            of_pairs = _pair_by_pair(loss, predictions, targets, matches)
            if not torch.allclose(
                matches.per_layer(of_pairs), loss(predictions, targets, matches), rtol=1e-3, atol=1e-4
            ):
                continue
            values = matches.assign(of_pairs.new_zeros(predictions.logits.shape[:3]), of_pairs)
        shares[loss.name] = loss.weight * values.cpu()
    return shares


def _pair_by_pair(loss: Loss, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
    """What a loss says of each pair, as if it were the only one: `[M]`."""
    values = [torch.zeros(0, device=predictions.device)]
    for pair in range(len(matches.layer)):
        one = slice(pair, pair + 1)
        alone = Matches(
            matches.layer[one], matches.image[one], matches.query[one], matches.target[one], matches.num_boxes
        )
        values.append(loss(predictions, targets, alone).float()[matches.layer[one]])
    return torch.cat(values)


@torch.no_grad()
def regrets(criterion: SetCriterion, predictions: Predictions, targets: Targets, most: int = 32) -> list[float]:
    """How much dearer the best assignment without a pair is, for up to `most` pairs of the last layer.

    Pairs that nothing could replace are left out; a matcher without costs has no regrets.
    """
    try:
        plan = _plan_of(criterion.matcher, True)
    except TypeError:
        return []
    alone = predictions.layers(predictions.num_layers - 1, predictions.num_layers)
    matches = criterion.matcher(alone, targets)
    pairs = list(zip(matches.query.tolist(), matches.target.tolist(), strict=True))
    starts = np.cumsum([0, *targets.counts]).tolist()
    found: list[float] = []
    for start, count in zip(starts, targets.counts, strict=False):
        if len(found) >= most or not count:
            continue
        own = slice(start, start + count)
        whole = sum(_terms(plan.costs, alone, targets, own).values(), torch.zeros(count, alone.num_queries))
        for query, target in [pair for pair in pairs if start <= pair[1] < start + count][: most - len(found)]:
            held = [column for column, row in pairs if row == target]
            regret, _ = _regret(whole, target - start, query, plan.copies, held)
            found += [] if math.isinf(regret) else [regret]
    return found
