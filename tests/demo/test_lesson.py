"""The lesson's panels answer by the code that trains, and what they say is true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lesson import (
    DIFFERENT,
    QUIZ,
    Toy,
    answered,
    areas,
    by_probability_and_logarithm,
    distances,
    every_assignment,
    moved_boxes,
    optimal,
    pair_of,
    slopes,
    solving_times,
    ways_of_matching,
)
from lesson_tab import matched, tried
from lesson_view import pair, times

from detr_ft.boxes import giou, iou
from detr_ft.criterion import HungarianMatcher


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_the_solver_finds_the_cheapest_of_all(size: int) -> None:
    costs = np.random.default_rng(size).normal(size=(size, size))
    every = every_assignment(costs)
    assert len(every) == np.prod(range(1, size + 1))
    assert optimal(costs) == every[0]
    assert [one.cost for one in every] == sorted(one.cost for one in every)


def test_a_table_is_answered_or_explained() -> None:
    told = tried([[1, 9], [9, 1]])
    assert "2 permutations tried" in told
    assert "answers 2.00, the same" in told
    for wrong in ([["a", 1], [1, 1]], [[1, 2, 3], [1, 2, 3]], [[1.0, float("nan")], [1, 1]], [[1]]):
        assert "number" in tried(wrong)


def test_times_are_measured_and_drawn() -> None:
    measured = solving_times(range(2, 6))
    assert [size for size, *_ in measured] == [2, 3, 4, 5]
    assert all(brute > 0 and quick > 0 for _, brute, quick in measured)
    assert times(measured).count("<polyline") == 2


def test_the_toy_image_is_matched_as_the_matcher_does() -> None:
    scene = Toy({"q4": (0.5, 0.72)})
    costs = scene.costs(1, 5, 2)
    matches = HungarianMatcher()(scene.predictions, scene.targets)
    expected = {int(target): int(query) for target, query in zip(matches.target, matches.query, strict=True)}
    assert [own[0] for own in ways_of_matching(costs)["optimal, one to one"]] == [
        expected[target] for target in range(3)
    ]


def test_only_without_one_to_one_is_an_object_found_twice() -> None:
    costs = Toy({"q4": (0.5, 0.72)}).costs(1, 5, 2)
    ways = ways_of_matching(costs)
    assert max(map(len, ways["optimal, one to one"])) == max(map(len, ways["greedy, one to one"])) == 1
    assert len(ways["each query to its nearest object"][0]) == 2


def test_each_way_is_drawn() -> None:
    for way in ways_of_matching(np.ones((3, 6))):
        picture, heat, taught = matched(way, "{}", 1, 5, 2)
        assert picture.startswith("<svg")
        assert "taken" in heat
        assert taught.count("<tr>") == 7


def test_the_same_relative_error_is_the_same_for_iou_and_not_for_l1() -> None:
    small, large = distances(0.4, 1.2)
    for name in ("IoU", "GIoU", "1 − DIoU", "1 − CIoU"):
        assert small[name] == pytest.approx(large[name], abs=1e-5)
    assert large["L1"] == pytest.approx(4 * small["L1"], rel=1e-5)
    apart = distances(2.0, 1.0)[0]
    assert apart["IoU"] == 0
    pulls = {(side, name): slope for side, name, slope in slopes(2.0, 1.0)}
    assert pulls[0.1, "1 − IoU"] == [0, 0, 0, 0]
    assert pulls[0.1, "1 − GIoU"][0] > 0
    assert pulls[0.1, "L1"][:2] == [1, 0]


def test_gradients_are_those_of_small_steps() -> None:
    """By differences, of the loss that trains and of GIoU's own arithmetic."""
    shift, size, down, step = 0.4, 1.2, 0.15, 1e-3
    told = {(side, name): slope for side, name, slope in slopes(shift, size, down)}
    for side in (0.1, 0.4):
        true, said = (one.double() for one in pair_of(shift, size, side, down))
        for axis in range(4):
            moved = [said.clone(), said.clone()]
            moved[0][axis] -= step * side
            moved[1][axis] += step * side
            low, high = (float(1 - giou(one[None], true[None])) for one in moved)
            assert told[side, "1 − GIoU"][axis] == pytest.approx((high - low) / (2 * step * side), rel=0.02, abs=0.02)


@pytest.mark.parametrize("size", [4, 5])
def test_every_permutation_is_listed(size: int) -> None:
    costs = np.random.default_rng(size).normal(size=(size, size)).tolist()
    assert tried(costs).count("<tr") == np.prod(range(1, size + 1)) + 1  # and the titles


def test_the_probability_and_its_logarithm_choose_differently() -> None:
    linear, logarithmic = by_probability_and_logarithm()
    assert linear.queries == (0, 1)
    assert logarithmic.queries == (1, 0)
    assert DIFFERENT.min() > 0


def test_every_question_has_one_right_answer_and_a_reason() -> None:
    for place, question in enumerate(QUIZ):
        told = [answered(place, answer) for answer in question.answers]
        assert sum(words.startswith("**Right.**") for words in told) == 1
        assert all(question.why in words for words in told)
        assert answered(place, None) == ""


@pytest.mark.parametrize(
    ("shift", "size", "down"), [(0.4, 1.2, 0.0), (2.0, 1.0, 0.5), (0.0, 0.5, 0.0), (-0.3, 2.0, -1.0)]
)
def test_the_areas_drawn_are_those_of_giou(shift: float, size: float, down: float) -> None:
    true, said = pair_of(shift, size, 0.4, down)
    told = areas(true, said)
    assert told.shared / told.union == pytest.approx(float(iou(true[None], said[None])), abs=1e-6)
    value = told.shared / told.union - (told.around - told.union) / told.around
    assert value == pytest.approx(float(giou(true[None], said[None])), abs=1e-6)
    assert f"= {value:.2f}" in pair(shift, size, down)


def test_boxes_move_and_stay_on_the_page() -> None:
    there = Toy(moved_boxes('{"q4": [0.55, 0.76], "A": [9, -9]}'))
    assert there.predictions.boxes[0, 0, 3, :2].tolist() == pytest.approx([0.55, 0.76])
    assert there.targets.boxes[0].tolist() == pytest.approx([0.87, 0.15, 0.26, 0.3])
    assert torch.equal(there.targets.boxes[1:], Toy().targets.boxes[1:])


@pytest.mark.parametrize(
    "told",
    [
        "",
        "{",
        "[1]",
        '{"A": 3}',
        '{"A": ["x", 1]}',
        '{"A": [NaN, 1]}',
        "null",
        "[" * 100_000,
        '{"A": [' + "9" * 400 + ", 1]}",
    ],
)
def test_what_says_of_no_moved_boxes_moves_none(told: str) -> None:
    assert moved_boxes(told) == {}
