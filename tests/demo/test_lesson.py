"""The lesson's panels answer by the code that trains, and what they say is true."""

from __future__ import annotations

import numpy as np
import pytest
from lesson import (
    DIFFERENT,
    QUIZ,
    Toy,
    answered,
    by_probability_and_logarithm,
    distances,
    every_assignment,
    optimal,
    solving_times,
    ways_of_matching,
)
from lesson_tab import matched, tried
from lesson_view import times

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
    scene = Toy(0.8)
    costs = np.sum(list(scene.costs(1, 5, 2).values()), axis=0)
    matches = HungarianMatcher()(scene.predictions, scene.targets)
    expected = {int(target): int(query) for target, query in zip(matches.target, matches.query, strict=True)}
    assert [own[0] for own in ways_of_matching(costs)["optimal, one to one"]] == [
        expected[target] for target in range(3)
    ]


def test_only_without_one_to_one_is_an_object_found_twice() -> None:
    costs = np.sum(list(Toy(0.8).costs(1, 5, 2).values()), axis=0)
    ways = ways_of_matching(costs)
    assert max(map(len, ways["optimal, one to one"])) == max(map(len, ways["greedy, one to one"])) == 1
    assert len(ways["each query to its nearest object"][0]) == 2


def test_each_way_is_drawn() -> None:
    for way in ways_of_matching(np.ones((3, 6))):
        picture, heat, taught = matched(way, 0.5, 1, 5, 2)
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
    assert apart["pull 1 − GIoU"] > 0


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
