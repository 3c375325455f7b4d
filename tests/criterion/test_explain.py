from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch

from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    OneToManyMatcher,
    SetCriterion,
    detr_criterion,
    explain,
)
from detr_ft.criterion.costs import total_cost
from detr_ft.criterion.explain import regrets
from detr_ft.criterion.matchers import DETR_COSTS
from detr_ft.structures import Matches, Predictions, Targets


def best(costs: torch.Tensor, forbidden: tuple[int, int] | None = None) -> float:
    """The minimal total over all one-to-one assignments of the rows without a pair."""
    rows, columns = costs.shape
    return min(
        (
            sum(float(costs[row, column]) for row, column in enumerate(order))
            for order in itertools.permutations(range(columns), rows)
            if forbidden is None or order[forbidden[0]] != forbidden[1]
        ),
        default=math.inf,
    )


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple))
def test_costs_regrets_and_losses_equal_brute_force(seed: int, counts: tuple[int, ...]) -> None:
    predictions, targets, _ = random_batch(seed, counts, layers=2, queries=5)
    criterion = detr_criterion()
    explained = explain(criterion, predictions, targets)
    whole = total_cost(DETR_COSTS, predictions, targets)
    start = 0
    for image, count in zip(explained, counts, strict=True):
        for index, layer in enumerate(image.layers):
            torch.testing.assert_close(layer.costs, whole[index, start : start + count])
            torch.testing.assert_close(sum(layer.terms.values(), torch.zeros(count, 5)), layer.costs)
            assert sorted(pair.target for pair in layer.pairs) == list(range(count))
            optimum = best(layer.costs)
            assert sum(pair.cost for pair in layer.pairs) == pytest.approx(optimum, abs=1e-4)
            for pair in layer.pairs:
                assert sum(pair.terms.values()) == pytest.approx(pair.cost, abs=1e-5)
                without = best(layer.costs, (pair.target, pair.query))
                assert pair.regret == pytest.approx(without - optimum, abs=1e-4)
                assert pair.instead != pair.query
        start += count
    loss, _ = criterion(predictions, targets)
    parts = sum(
        sum(sum(pair.losses.values()) for pair in layer.pairs) + sum(layer.no_object.values())
        for image in explained
        for layer in image.layers
    )
    assert parts == pytest.approx(loss.item(), rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_one_to_many_regrets_equal_brute_force(seed: int) -> None:
    """Two targets with two of five queries each: the best assignment without a pair, and the query that the target gains."""
    predictions, targets, _ = random_batch(seed, (2,), layers=1, queries=5)
    layer = explain(SetCriterion(OneToManyMatcher(k=2), detr_criterion().losses), predictions, targets)[0].layers[0]
    ways = [  # the queries of both targets
        (set(first), set(second))
        for first in itertools.combinations(range(5), 2)
        for second in itertools.combinations(sorted(set(range(5)) - set(first)), 2)
    ]

    def price(way: tuple[set[int], set[int]]) -> float:
        return sum(float(layer.costs[target, query]) for target in range(2) for query in way[target])

    optimum = min(map(price, ways))
    for pair in layer.pairs:
        others = [way for way in ways if pair.query not in way[pair.target]]
        second = min(others, key=price)
        assert pair.regret == pytest.approx(price(second) - optimum, abs=1e-4)
        own = {other.query for other in layer.pairs if other.target == pair.target}
        gained = second[pair.target] - own
        assert pair.instead == min(gained, key=lambda query: float(layer.costs[pair.target, query]))


def test_partners_and_their_changes() -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.1, 0.1], [0.8, 0.8, 0.1, 0.1]])
    targets = Targets(torch.tensor([0, 0]), boxes, torch.tensor([0, 0]), (2,))
    predicted = torch.stack([boxes, boxes.flip(0), boxes.flip(0)])[:, None]
    explained = explain(detr_criterion(), Predictions(torch.zeros(3, 1, 2, 2), predicted), targets)[0]
    assert explained.partners == [[0, 1, 1], [1, 0, 0]]
    assert explained.changes == [2, 0]


def test_a_pair_without_alternative() -> None:
    predictions, targets, _ = random_batch(0, (1,), queries=1)
    pair = explain(detr_criterion(), predictions, targets)[0].layers[0].pairs[0]
    assert pair.regret == math.inf
    assert pair.instead is None


def test_more_targets_than_queries() -> None:
    predictions, targets, _ = random_batch(0, (4,), queries=2)
    explained = explain(detr_criterion(), predictions, targets)[0]
    assert len(explained.layers[0].pairs) == 2
    assert [queries[0] for queries in explained.partners].count(None) == 2


def test_each_layer_by_its_own_matcher() -> None:
    predictions, targets, _ = random_batch(0, (2,), layers=3)
    far = HungarianMatcher([BoxL1Cost()])
    matcher = MatcherSchedule([GreedyMatcher(), LayerMatcher(far, OneToManyMatcher(k=2))], [0, 5])
    criterion = SetCriterion(matcher, detr_criterion().losses)
    layers = explain(criterion, predictions, targets)[0].layers
    assert [len(layer.pairs) for layer in layers] == [4, 4, 2]
    assert list(layers[0].terms) == ["ClassCost", "BoxL1Cost", "GIoUCost"]
    assert list(layers[2].terms) == ["BoxL1Cost"]
    assert all(pair.regret >= -1e-5 for layer in layers for pair in layer.pairs)


def test_two_costs_of_a_class_are_numbered() -> None:
    predictions, targets, _ = random_batch(0, (2,))
    criterion = SetCriterion(HungarianMatcher([BoxL1Cost(1), BoxL1Cost(2)]), detr_criterion().losses)
    terms = explain(criterion, predictions, targets)[0].layers[0].terms
    torch.testing.assert_close(2 * terms["BoxL1Cost"], terms["BoxL1Cost 2"])


def test_one_to_many_instead_is_a_query_that_the_target_lacks() -> None:
    predictions, targets, _ = random_batch(0, (2,), layers=1, queries=6)
    criterion = SetCriterion(OneToManyMatcher(k=2), detr_criterion().losses)
    pairs = explain(criterion, predictions, targets)[0].layers[0].pairs
    for pair in pairs:
        assert pair.instead not in [other.query for other in pairs if other.target == pair.target]


class Fixed:
    """A matcher without costs."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return HungarianMatcher()(predictions, targets)


def test_a_matcher_without_costs_is_refused() -> None:
    predictions, targets, _ = random_batch(0, (2,))
    with pytest.raises(TypeError, match="CostMatcher"):
        explain(SetCriterion(Fixed(), detr_criterion().losses), predictions, targets)


def test_regrets_are_those_of_the_last_layers_pairs() -> None:
    predictions, targets, _ = random_batch(3, (3, 0, 4), layers=2, queries=6)
    mixed = LayerMatcher(OneToManyMatcher(k=2), HungarianMatcher())
    for matcher in (HungarianMatcher(), mixed):
        criterion = SetCriterion(matcher, detr_criterion().losses)
        expected = [
            pair.regret for image in explain(criterion, predictions, targets) for pair in image.layers[-1].pairs
        ]
        assert regrets(criterion, predictions, targets) == pytest.approx(
            [regret for regret in expected if regret != math.inf]
        )
        assert regrets(criterion, predictions, targets, max_pairs=4) == pytest.approx(expected[:4])


def test_pairs_without_alternative_or_costs_have_no_regret() -> None:
    predictions, targets, _ = random_batch(0, (1,), queries=1)
    assert regrets(detr_criterion(), predictions, targets) == []
    predictions, targets, _ = random_batch(0, (2,))
    assert regrets(SetCriterion(Fixed(), detr_criterion().losses), predictions, targets) == []


class OfOnesOwn:
    """A sum over pairs that is no PairLoss."""

    name, weight = "loss_own", 3.0

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        apart = matches.predicted(predictions.boxes) - matches.target_values(targets.boxes)
        return matches.per_layer(apart.square().sum(-1)) / matches.num_boxes


def test_a_user_loss_that_sums_over_pairs_is_split_by_pair() -> None:
    predictions, targets, _ = random_batch(0, (2, 0, 3))
    criterion = SetCriterion(HungarianMatcher(), [OfOnesOwn(), BoxL1Loss(weight=0)])
    explained = explain(criterion, predictions, targets)
    parts = [pair.losses["loss_own"] for image in explained for layer in image.layers for pair in layer.pairs]
    assert len(parts) == 15
    assert sum(parts) == pytest.approx(criterion(predictions, targets)[0].item(), rel=1e-4)
