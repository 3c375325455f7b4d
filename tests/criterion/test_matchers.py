from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.brute_force import BruteForceMatcher
from support.random_batches import pairs_as_lists, random_batch

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.criterion import (
    BoxL1Cost,
    ClassCost,
    CriterionError,
    GIoUCost,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatcherSchedule,
    OneToManyMatcher,
    SetCriterion,
    detr_criterion,
)
from detr_ft.criterion.costs import total_cost
from detr_ft.criterion.matchers import DETR_COSTS
from detr_ft.criterion.serialization import configure, describe
from detr_ft.structures import Matches, Predictions, Targets


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))
def test_hungarian_is_the_best_of_all_permutations(seed: int, counts: tuple[int, ...]) -> None:
    predictions, targets, _ = random_batch(seed, counts, layers=2, queries=5)
    matches = HungarianMatcher()(predictions, targets)
    cost = total_cost(DETR_COSTS, predictions, targets)
    start = 0
    for image, count in enumerate(counts):
        for layer in range(2):
            mine = matches.layer.eq(layer) & matches.image.eq(image)
            assert sorted(matches.target[mine].tolist()) == list(range(start, start + count))
            assert len(set(matches.query[mine].tolist())) == count
            total = cost[layer, matches.target[mine], matches.query[mine]].sum()
            best = min(
                sum(cost[layer, start + row, query] for row, query in enumerate(order))
                for order in itertools.permutations(range(5), count)
            )
            torch.testing.assert_close(total, torch.as_tensor(float(best)), rtol=1e-5, atol=1e-5)
        start += count


def test_a_cost_reads_the_queries_of_its_own_image() -> None:
    predictions, targets, _ = random_batch(1, (2, 3))
    for cost in (ClassCost(), BoxL1Cost(), GIoUCost()):
        whole = cost(predictions, targets)
        second = Predictions(predictions.logits[:, 1:], predictions.boxes[:, 1:])
        alone = cost(second, Targets(targets.labels[2:], targets.boxes[2:], torch.zeros(3, dtype=torch.long), (3,)))
        torch.testing.assert_close(whole[:, 2:], alone)


def test_class_cost_is_minus_the_probability() -> None:
    predictions, targets, _ = random_batch(2, (2,))
    expected = -predictions.logits.softmax(-1)[:, 0][..., targets.labels].transpose(1, 2)
    torch.testing.assert_close(ClassCost()(predictions, targets), expected)


def test_one_to_many_gives_k_queries_or_as_many_as_fit() -> None:
    predictions, targets, _ = random_batch(3, (2, 0, 4), queries=9)
    pairs = pairs_as_lists(OneToManyMatcher(k=3)(predictions, targets))
    for target, expected in [(0, 3), (1, 3), (2, 2), (3, 2), (4, 2), (5, 2)]:
        assert [pair[3] for pair in pairs if pair[0] == 0].count(target) == expected
    queries = [pair[:3] for pair in pairs]
    assert len(queries) == len(set(queries))


def test_one_to_many_divides_by_its_pairs() -> None:
    predictions, targets, _ = random_batch(3, (2, 1), queries=9)
    matches = OneToManyMatcher(k=3)(predictions, targets)
    assert matches.num_boxes.tolist() == [9, 9, 9]


def test_layers_can_be_matched_differently() -> None:
    predictions, targets, _ = random_batch(4, (2, 1), layers=3, queries=9)
    matches = LayerMatcher(HungarianMatcher(), OneToManyMatcher(k=2))(predictions, targets)
    assert [int(matches.layer.eq(layer).sum()) for layer in range(3)] == [6, 6, 3]
    assert matches.num_boxes.tolist() == [6, 6, 3]
    single = LayerMatcher(HungarianMatcher(), OneToManyMatcher(k=2))(predictions.layers(2, 3), targets)
    assert len(single.layer) == 3


def test_a_schedule_changes_the_matcher_by_epoch() -> None:
    predictions, targets, _ = random_batch(4, (2, 1), queries=9)
    schedule = MatcherSchedule([OneToManyMatcher(k=2), HungarianMatcher()], [0, 3])
    criterion = SetCriterion(schedule, detr_criterion().losses)
    assert [type(criterion.at(epoch).matcher).__name__ for epoch in (0, 2, 3, 9)] == [
        "OneToManyMatcher", "OneToManyMatcher", "HungarianMatcher", "HungarianMatcher",
    ]  # fmt: skip
    assert pairs_as_lists(schedule(predictions, targets)) == pairs_as_lists(HungarianMatcher()(predictions, targets))
    assert criterion.at(3).at(0) == criterion.at(3)
    assert configure(describe(criterion)) == criterion


@pytest.mark.parametrize("starts", [[0], [1, 3], [0, 0], [3, 0], []])
def test_a_schedule_starts_at_0_and_rises(starts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"starts|need as many"):
        MatcherSchedule([HungarianMatcher(), GreedyMatcher()], starts)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple))
def test_hungarian_costs_as_much_as_brute_force_and_greedy_at_least_as_much(seed: int, counts: tuple[int, ...]) -> None:
    predictions, targets, _ = random_batch(seed, counts, layers=2, queries=5)
    cost = total_cost(DETR_COSTS, predictions, targets)
    totals = []
    for matcher in (HungarianMatcher(), BruteForceMatcher(), GreedyMatcher()):
        matches = matcher(predictions, targets)
        assert len(matches.layer) == 2 * sum(min(count, 5) for count in counts)
        totals.append(float(cost[matches.layer, matches.target, matches.query].sum()))
    assert totals[0] == pytest.approx(totals[1], abs=1e-4)
    assert totals[2] >= totals[1] - 1e-4


def test_an_overflow_of_the_sum_of_costs_raises() -> None:
    predictions, targets, _ = random_batch(4, (2,))
    with pytest.raises(CriterionError, match="overflows"):
        HungarianMatcher([BoxL1Cost(weight=3e38), BoxL1Cost(weight=3e38)])(predictions, targets)


class Reversed:
    """A user's matcher, without a plan."""

    def __call__(self, predictions: Predictions, targets: Targets) -> Matches:
        return GreedyMatcher([ClassCost()])(predictions, targets)


def test_a_user_matcher_may_match_a_layer() -> None:
    predictions, targets, _ = random_batch(4, (2, 1), layers=3)
    pairs = pairs_as_lists(LayerMatcher(HungarianMatcher(), Reversed())(predictions, targets))
    alone = pairs_as_lists(Reversed()(predictions, targets)), pairs_as_lists(HungarianMatcher()(predictions, targets))
    assert [pair for pair in pairs if pair[0] < 2] == [pair for pair in alone[0] if pair[0] < 2]
    assert [pair for pair in pairs if pair[0] == 2] == [pair for pair in alone[1] if pair[0] == 2]
    last = predictions.layers(2, 3)
    assert pairs_as_lists(LayerMatcher(Reversed(), HungarianMatcher())(last, targets)) == pairs_as_lists(
        Reversed()(last, targets)
    )


def test_brute_force_raises_for_many_queries() -> None:
    predictions, targets, _ = random_batch(4, (2,), queries=9)
    with pytest.raises(ValueError, match="limited to 7"):
        BruteForceMatcher()(predictions, targets)


def test_more_targets_than_queries_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    predictions, targets, _ = random_batch(5, (7, 1), queries=4)
    with caplog.at_level("WARNING"):
        matches = HungarianMatcher()(predictions, targets)
        HungarianMatcher()(predictions, targets)
    assert int(matches.layer.eq(0).sum()) == 5
    assert [record.message for record in caplog.records if "3 of 8 targets" in record.message] == [caplog.messages[0]]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p, t: t.labels.fill_(5), ["labels", "0..4", "image 0", "no-object"]),
        (lambda p, t: t.labels.fill_(-1), ["labels", "-1"]),
        (lambda p, t: t.boxes.mul_(640), ["boxes", "pixels"]),
        (lambda p, t: t.boxes.copy_(torch.tensor([0.4, 0.4, 0.9, 0.9])), ["boxes", "xyxy"]),
        (lambda p, t: t.boxes.copy_(torch.tensor([0.7, 0.7, 0.9, 0.5])), ["boxes", "reach beyond"]),
        (lambda p, t: t.boxes[0].fill_(float("nan")), ["boxes", "not finite"]),
        (lambda p, t: t.boxes[0, 2:].fill_(-0.1), ["boxes", "negative"]),
        (lambda p, t: p.logits[1, 1].fill_(float("nan")), ["predicted logits", "layer 1", "image 1"]),
        (lambda p, t: p.boxes[0, 1].fill_(float("inf")), ["predicted boxes", "layer 0", "image 1"]),
    ],
)
def test_invalid_input_raises_with_place_and_cause(damage: object, words: list[str]) -> None:
    predictions, targets, _ = random_batch(6, (2, 1))
    with torch.no_grad():
        damage(predictions, targets)  # type: ignore[operator]
    with pytest.raises(CriterionError) as caught:
        HungarianMatcher()(predictions, targets)
    for word in words:
        assert word in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=4).filter(any).map(tuple),
    indices=st.tuples(*[st.integers(0, 999)] * 3),
    label=st.sampled_from([-7, -1, 5, 6, 90]),
    bad=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)
def test_any_invalid_number_is_located(
    counts: tuple[int, ...], indices: tuple[int, int, int], label: int, bad: float
) -> None:
    layer, image, target = indices[0] % 3, indices[1] % len(counts), indices[2] % sum(counts)
    predictions, targets, _ = random_batch(0, counts)
    with torch.no_grad():
        predictions.boxes[layer, image, 2, 1] = bad
    with pytest.raises(
        CriterionError, match=f"predicted boxes are NaN or infinite, first at layer {layer}, image {image} "
    ):
        HungarianMatcher()(predictions, targets)
    predictions, targets, _ = random_batch(0, counts)
    targets.labels[target] = label
    with pytest.raises(CriterionError, match=f"is {label}, in image {int(targets.image[target])} of the batch"):
        HungarianMatcher()(predictions, targets)
    targets.labels[target] = 0
    targets.boxes[target, 0] = bad
    with pytest.raises(CriterionError, match=f"in image {int(targets.image[target])} of the batch. It is not finite"):
        HungarianMatcher()(predictions, targets)


@pytest.mark.parametrize(
    ("wrong", "likely"),
    [
        (lambda boxes: boxes * torch.tensor([640, 480, 640, 480]), "pixels"),
        (lambda boxes: cxcywh_to_xyxy(boxes), "xyxy"),
        (lambda boxes: cxcywh_to_xyxy(boxes) * torch.tensor([640, 480, 640, 480]), "pixels"),
    ],
    ids=["pixels", "corners", "corners in pixels"],
)
def test_boxes_in_another_format_are_recognized(wrong: Any, likely: str) -> None:
    """A hundred random batches of four images, with boxes of any size and position."""
    caught = named = 0
    for seed in range(100):
        generator = torch.Generator().manual_seed(seed)
        low, high = torch.rand(2, 12, 2, generator=generator).sort(0).values
        boxes = wrong(torch.cat([(low + high) / 2, high - low], -1))
        predictions, _, labels = random_batch(seed, (3, 3, 3, 3))
        for index, of_image in enumerate(labels):
            of_image["boxes"] = boxes[3 * index : 3 * index + 3]
        try:
            HungarianMatcher()(predictions, Targets.from_labels(labels, predictions.device))
        except CriterionError as error:
            caught, named = caught + 1, named + (likely in str(error))
    assert caught >= 95
    assert named >= 95


def test_a_bad_cost_of_the_last_layer_is_named_there() -> None:
    class Late(BoxL1Cost):
        def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
            return super().__call__(predictions, targets) * float("nan")

    predictions, targets, _ = random_batch(7, (2, 1))
    with pytest.raises(CriterionError, match="at layer 2"):
        LayerMatcher(HungarianMatcher([Late()]), HungarianMatcher())(predictions, targets)


def test_names_a_cost_that_is_not_finite() -> None:
    class Broken:
        weight = 1.0

        def __call__(self, predictions: Predictions, targets: Targets) -> torch.Tensor:
            return torch.full((3, 3, 9), float("nan"))

        def __repr__(self) -> str:
            return "Broken()"

    predictions, targets, _ = random_batch(7, (2, 1))
    with pytest.raises(CriterionError, match=r"Broken\(\)"):
        HungarianMatcher([ClassCost(), Broken()])(predictions, targets)


def test_invalid_matchers_raise() -> None:
    for costs, remedy in (([ClassCost], r"Write ClassCost\(\)"), (ClassCost, r"Write \[ClassCost\(\)\]")):
        with pytest.raises(TypeError, match=remedy):
            HungarianMatcher(costs)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"\[ClassCost"):
        HungarianMatcher(ClassCost())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one schedule"):
        MatcherSchedule([MatcherSchedule([HungarianMatcher()], [0])], [0])
    with pytest.raises(ValueError, match="weight is not 0"):
        HungarianMatcher([ClassCost(weight=0)])
    with pytest.raises(ValueError, match="at least 1"):
        OneToManyMatcher(k=0)
