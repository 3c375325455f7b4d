"""The panels of the lesson use the library, and their statements are true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lesson import (
    PAIR_PROBABILITIES,
    QUIZ,
    Toy,
    all_assignments,
    areas,
    box_pair,
    by_probability_and_logarithm,
    distances,
    gradients,
    match_by_each_method,
    measure_solvers,
    optimal_assignment,
    parse_centers,
    review_answer,
)
from lesson_tab import assignments_html, set_prediction_html
from lesson_view import pair, times

from detr_ft.boxes import giou, iou
from detr_ft.criterion import HungarianMatcher


@pytest.mark.parametrize("size", [2, 3, 4, 5, 6])
def test_the_solver_finds_the_cheapest_assignment(size: int) -> None:
    costs = np.random.default_rng(size).normal(size=(size, size))
    every = all_assignments(costs)
    assert len(every) == np.prod(range(1, size + 1))
    assert optimal_assignment(costs) == every[0]
    assert [assignment.cost for assignment in every] == sorted(assignment.cost for assignment in every)


def test_a_table_of_costs_is_solved_or_rejected() -> None:
    html = assignments_html([[1, 9], [9, 1]])
    assert "2 assignments, the cheapest" in html
    assert "finds 2.00, the same" in html
    for wrong in ([["a", 1], [1, 1]], [[1, 2, 3], [1, 2, 3]], [[1.0, float("nan")], [1, 1]], [[1]]):
        assert "number" in assignments_html(wrong)


def test_times_are_measured_and_drawn() -> None:
    measured = measure_solvers(range(2, 6))
    assert [point.objects for point in measured] == [2, 3, 4, 5]
    assert all(point.exhaustive > 0 and point.hungarian > 0 for point in measured)
    assert times(measured).count("<polyline") == 2


def test_the_toy_image_is_matched_as_by_the_matcher() -> None:
    scene = Toy({"q4": (0.5, 0.72)})
    costs = scene.costs(1, 5, 2)
    matches = HungarianMatcher()(scene.predictions, scene.targets)
    expected = {int(target): int(query) for target, query in zip(matches.target, matches.query, strict=True)}
    assert [own[0] for own in match_by_each_method(costs)["optimal, one to one"]] == [
        expected[target] for target in range(3)
    ]


def test_an_object_has_two_queries_only_without_one_to_one_matching() -> None:
    costs = Toy({"q4": (0.5, 0.72)}).costs(1, 5, 2)
    methods = match_by_each_method(costs)
    assert max(map(len, methods["optimal, one to one"])) == max(map(len, methods["greedy, one to one"])) == 1
    assert len(methods["each query to its nearest object"][0]) == 2


def test_each_matching_method_is_drawn() -> None:
    for method in match_by_each_method(np.ones((3, 6))):
        image, matrix, targets = set_prediction_html(method, "{}", 1, 5, 2)
        assert image.startswith("<svg")
        assert 'class="matched"' in matrix
        assert targets.count("<tr>") == 7


def test_the_same_relative_error_is_the_same_for_iou_and_not_for_l1() -> None:
    small, large = distances(0.4, 1.2)
    for name in ("IoU", "GIoU", "1 − DIoU", "1 − CIoU"):
        assert small[name] == pytest.approx(large[name], abs=1e-5)
    assert large["L1"] == pytest.approx(4 * small["L1"], rel=1e-5)
    apart = distances(2.0, 1.0)[0]
    assert apart["IoU"] == 0
    by_distance = {(side, name): gradient for side, name, gradient in gradients(2.0, 1.0)}
    assert by_distance[0.1, "1 − IoU"] == [0, 0, 0, 0]
    assert by_distance[0.1, "1 − GIoU"][0] > 0
    assert by_distance[0.1, "L1"][:2] == [1, 0]


def test_gradients_are_those_of_small_steps() -> None:
    """Finite differences of GIoU."""
    shift, size, down, step = 0.4, 1.2, 0.15, 1e-3
    by_distance = {(side, name): gradient for side, name, gradient in gradients(shift, size, down)}
    for side in (0.1, 0.4):
        truth, predicted = (box.double() for box in box_pair(shift, size, side, down))
        for axis in range(4):
            moved = [predicted.clone(), predicted.clone()]
            moved[0][axis] -= step * side
            moved[1][axis] += step * side
            low, high = (float(1 - giou(box[None], truth[None])) for box in moved)
            assert by_distance[side, "1 − GIoU"][axis] == pytest.approx(
                (high - low) / (2 * step * side), rel=0.02, abs=0.02
            )


@pytest.mark.parametrize("size", [4, 5])
def test_all_assignments_are_listed(size: int) -> None:
    costs = np.random.default_rng(size).normal(size=(size, size)).tolist()
    assert assignments_html(costs).count("<tr") == np.prod(range(1, size + 1)) + 1  # and the header


def test_probability_and_logarithm_match_differently() -> None:
    linear, logarithmic = by_probability_and_logarithm()
    assert linear.queries == (0, 1)
    assert logarithmic.queries == (1, 0)
    assert PAIR_PROBABILITIES.min() > 0


def test_every_question_has_one_right_answer_and_an_explanation() -> None:
    for index, question in enumerate(QUIZ):
        reviews = [review_answer(index, answer) for answer in question.answers]
        assert sum(review.startswith("**Right.**") for review in reviews) == 1
        assert all(question.explanation in review for review in reviews)
        assert review_answer(index, None) == ""


@pytest.mark.parametrize(
    ("shift", "size", "down"), [(0.4, 1.2, 0.0), (2.0, 1.0, 0.5), (0.0, 0.5, 0.0), (-0.3, 2.0, -1.0)]
)
def test_the_areas_drawn_are_those_of_giou(shift: float, size: float, down: float) -> None:
    truth, predicted = box_pair(shift, size, 0.4, down)
    area = areas(truth, predicted)
    assert area.intersection / area.union == pytest.approx(float(iou(truth[None], predicted[None])), abs=1e-6)
    value = area.intersection / area.union - (area.hull - area.union) / area.hull
    assert value == pytest.approx(float(giou(truth[None], predicted[None])), abs=1e-6)
    assert f"= {value:.2f}" in pair(shift, size, down)


def test_boxes_move_within_the_image() -> None:
    moved = Toy(parse_centers('{"q4": [0.55, 0.76], "A": [9, -9]}'))
    assert moved.predictions.boxes[0, 0, 3, :2].tolist() == pytest.approx([0.55, 0.76])
    assert moved.targets.boxes[0].tolist() == pytest.approx([0.87, 0.15, 0.26, 0.3])
    assert torch.equal(moved.targets.boxes[1:], Toy().targets.boxes[1:])


@pytest.mark.parametrize(
    "text",
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
def test_invalid_centers_move_no_box(text: str) -> None:
    assert parse_centers(text) == {}
