"""The microscope says of an image what the criterion says of it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from api import match
from compare_tab import Both, Sides, differences
from examples import Example, examples_of
from exhaustive_matcher import TryingMatcher, _cheapest
from matching import AS_TRAINED, LOSSES, Knobs, Scene, cost_names, costs_of, look, solve
from matching_tab import Microscope, corners_of, drawn, with_object, without_last
from matching_view import matrix, padding
from PIL import Image

from detr_ft.criterion import (
    HungarianMatcher,
    LayerMatcher,
    OneToManyMatcher,
    SetCriterion,
    SoftmaxFocalLoss,
    detr_criterion,
)
from detr_ft.criterion.assignment import by_scipy
from detr_ft.criterion.matchers import DETR_COSTS
from detr_ft.errors import InputError
from detr_ft.inference import Detector
from detr_ft.models import attach_criterion
from detr_ft.models.surgery import set_queries
from detr_ft.utils.drawing import class_color
from detr_ft.workflows.trained_criterion import trained_by


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("embedded:small")


@pytest.fixture(scope="module")
def example(detector: Detector) -> Example:
    return examples_of("embedded:small", detector.names, None)[0]


def looked(detector: Detector, one: Example) -> Scene:
    return look(detector, one.name, one.picture, one.boxes, one.labels(detector.names))


def test_its_loss_is_the_training_loss_of_the_image(detector: Detector, example: Example) -> None:
    solved = solve(looked(detector, example), Knobs())
    criterion = detr_criterion()
    scene = solved.scene
    _, values = criterion(scene.predictions, scene.targets)
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    told = solved.losses()
    for name in LOSSES:
        last = sum(told[name][-1])
        assert last == pytest.approx(weights[name] * float(values[name]), rel=1e-4)
        assert sum(told[name][0]) == pytest.approx(weights[name] * float(values[f"{name}_0"]), rel=1e-4)


def test_predictions_are_those_of_every_layer(detector: Detector, example: Example) -> None:
    said = detector.predictions(example.picture)
    assert said.num_layers == detector.model.config.decoder_layers
    found = detector.detect([example.picture])[0]
    assert float(said.logits[-1, 0].softmax(-1)[:, :-1].max()) == pytest.approx(float(found.scores[0]), abs=1e-5)
    attached = attach_criterion(detector.model, detr_criterion())
    attached.detach()
    assert torch.equal(detector.predictions(example.picture).logits, said.logits)


def test_knobs_solve_it_anew(detector: Detector, example: Example) -> None:
    scene = looked(detector, example)
    plain = solve(scene, Knobs())
    assert [pair.query for pair in plain.layer(4).pairs]
    only_class = solve(scene, Knobs(weights=(1.0, 0.0, 0.0)))
    assert not torch.equal(plain.layer(4).costs, only_class.layer(4).costs)
    many = solve(scene, Knobs(matcher="one to many"))
    assert len(many.layer(4).pairs) == 3 * len(example.boxes)
    equal = solve(scene, Knobs(eos_coef=1.0))
    assert sum(equal.losses()["loss_ce"][0]) > 0
    assert equal.losses()["loss_bbox"] == plain.losses()["loss_bbox"]


def test_a_slider_is_answered_in_three_tenths_of_a_second(detector: Detector, example: Example) -> None:
    scene = looked(detector, example)
    spent = []
    for weight in (1.0, 2.0, 3.0, 4.0, 5.0):
        began = time.perf_counter()
        parts = drawn(solve(scene, Knobs(weights=(1.0, weight, 2.0))), 4, "whole", detector.names)
        spent.append(time.perf_counter() - began)
        assert all(parts)
    assert sorted(spent)[2] < 0.3


def test_what_is_drawn_is_what_was_solved(detector: Detector, example: Example) -> None:
    solved = solve(looked(detector, example), Knobs())
    picture, pairs, *_ = drawn(solved, 4, "whole", detector.names)
    queries = solved.scene.predictions.num_queries
    assert picture.count('class="true"') - 1 == len(example.boxes)  # and one in the legend
    assert picture.count('class="free"') - 1 == queries - len(example.boxes)
    for pair in solved.layer(4).pairs:
        assert f"← q{pair.query}<" in picture
        assert f"<td>q{pair.query}</td>" in pairs
        assert f"<td>{pair.cost:.2f}</td>" in pairs
    heat = matrix(solved, 4, "GIoU", detector.names)
    assert heat.count('class="taken"') == len(example.boxes)
    told = solved.layer(4).terms["GIoUCost"]
    assert all(f">{float(told[pair.target, pair.query]):.2f}<" in heat for pair in solved.layer(4).pairs)
    padded = padding(solved, 4)
    assert padded.count('class="object"') == len(example.boxes)
    assert padded.count('class="none"') == queries - len(example.boxes)


def test_objects_are_drawn_and_taken_away(detector: Detector, example: Example) -> None:
    scene = looked(detector, example).with_truth([], [])
    assert "no object here" in drawn(solve(scene, Knobs()), 4, "whole", detector.names)[1]
    one = with_object(scene, [10, 10, 60, 60], 2)
    assert one.predictions is scene.predictions
    assert len(solve(one, Knobs()).layer(4).pairs) == 1
    assert len(without_last(one)[0].boxes) == 0
    assert without_last(None)[0] is None


def test_names_cannot_bring_markup(detector: Detector, example: Example) -> None:
    names = ["<img src=x onerror=alert(1)>"] * len(detector.names)
    for part in drawn(solve(looked(detector, example), Knobs()), 4, "whole", names):
        assert not re.search(r"<img src=x", part)


def test_an_object_that_no_query_is_left_for_is_drawn_and_told(detector: Detector, example: Example) -> None:
    """Twenty-six objects, and twenty-five queries."""
    boxes = [[float(place), 10.0, float(place) + 20, 40.0] for place in range(26)]
    solved = solve(looked(detector, example).with_truth(boxes, [0] * 26), Knobs())
    picture = drawn(solved, 4, "whole", detector.names)[0]
    assert picture.count('class="true"') - 1 == 26
    assert picture.count("← no query<") == 1


def test_a_pair_that_nothing_could_replace_has_no_regret_for_programs(tmp_path: Path) -> None:
    alone = Detector.load("embedded:small")
    set_queries(alone.model, 1, torch.ones(25))
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    told = match(alone, str(tmp_path / "black.png"), [{"class": "circle", "box": [5, 10, 25, 40]}], None)
    assert [(pair["query"], pair["regret"], pair["instead"]) for pair in told["pairs"]] == [(0, None, None)]
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("weights", [{"class": "much"}, {"L1": -1}, {"GIoU": float("nan")}, {"iou": 1}, [1, 2, 3]])
def test_weights_that_are_none_are_explained(detector: Detector, tmp_path: Path, weights: object) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(gr.Error, match="weights is a mapping"):
        match(detector, str(tmp_path / "black.png"), [], weights)


def test_data_of_other_classes_begin_without_them_or_not_at_all(detector: Detector) -> None:
    with pytest.raises(InputError, match=r"--data generated:workshop.*has an object that the model knows"):
        examples_of("embedded:small", detector.names, "generated:workshop?train=0&validation=2&edge=64")
    known = [name for name in detector.names if name != "circle"]
    given = examples_of("embedded:small", known, "generated:shapes?train=0&validation=12&edge=64")
    assert "circle" not in {name for one in given for name in one.names}
    assert any(one.names for one in given)
    assert all(len(one.boxes) == len(one.names) for one in given)


@pytest.mark.parametrize("objects", [1, 2, 3, 4])
def test_trying_all_orders_finds_what_the_hungarian_algorithm_does(detector: Detector, objects: int) -> None:
    random = torch.Generator().manual_seed(objects)
    for example in examples_of("embedded:small", detector.names, None):
        corners = torch.rand(objects, 2, generator=random) * 60
        boxes = torch.hstack([corners, corners + 5 + 20 * torch.rand(objects, 2, generator=random)]).tolist()
        scene = look(detector, "any", example.picture, boxes, [0] * objects)
        tried, solved = (
            [pair.cost for pair in solve(scene, Knobs(matcher=name)).layer(4).pairs]
            for name in ("trying all orders", "Hungarian")
        )
        assert len(tried) == objects
        assert sum(tried) == pytest.approx(sum(solved), abs=1e-5)


def test_too_many_objects_to_try_are_told(detector: Detector, example: Example) -> None:
    scene = looked(detector, example).with_truth([[0.0, 0.0, 9.0, 9.0]] * 5, [0] * 5)
    microscope = Microscope(detector, {}, detr_criterion())
    said = microscope.show(scene, 4, "trying all orders", 0.1, "whole", 1.0, 5.0, 2.0)
    assert "5 objects here, and all orders of more than 4" in said[0]
    with pytest.raises(ValueError, match="5 objects"):
        TryingMatcher(DETR_COSTS)(scene.predictions, scene.targets)


CODE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Width:
    weight: float = 1.0

    def __call__(self, predictions, targets):
        said = predictions.boxes[:, targets.image, :, 2]
        return (said - targets.boxes[None, :, None, 2]).abs()
"""
RECIPE = """
model: {checkpoint: "embedded:small"}
data: {source: "generated:shapes?train=4&validation=2"}
criterion:
  matcher: {use: HungarianMatcher, costs: [{use: ClassCost, weight: 1}, {use: GIoUCost, weight: 2}, {use: "mine.py:Width", weight: 3}]}
  losses: [{use: CrossEntropyLoss, weight: 1}, {use: BoxL1Loss, weight: 5}]
train: {output_dir: runs/mine}
"""


def test_terms_of_ones_own_are_seen_and_weighed(detector: Detector, example: Example, tmp_path: Path) -> None:
    """A run's recipe with a cost from a file, by name in the matrix, the pairs and the sliders."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    criterion = trained_by(str(tmp_path), detector)
    assert cost_names(criterion) == {"ClassCost": "class", "GIoUCost": "GIoU", "Width": "Width"}
    assert [cost.weight for cost in costs_of(criterion)] == [1.0, 2.0, 3.0]
    scene = looked(detector, example)
    for weights, zero in (((1.0, 2.0, 3.0), False), ((1.0, 2.0, 0.0), True)):
        solved = solve(scene, Knobs(weights, own=criterion))
        assert bool((solved.layer(4).terms["Width"] == 0).all()) == zero
        parts = drawn(solved, 4, "Width", detector.names)
        assert "Width cost, weighted" in parts[2]
        assert '<th scope="col">Width</th>' in parts[1]


def test_the_matcher_that_it_was_trained_by(detector: Detector, example: Example) -> None:
    own = SetCriterion(LayerMatcher(last=HungarianMatcher(), auxiliary=OneToManyMatcher(k=2)), detr_criterion().losses)
    solved = solve(looked(detector, example), Knobs(matcher=AS_TRAINED, own=own))
    objects = len(example.boxes)
    assert [len(solved.layer(number).pairs) for number in (1, 2, 3, 4)] == [2 * objects] * 3 + [objects]


def test_a_recipe_that_no_longer_holds_is_told_and_detrs_own_taken(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)  # and no mine.py
    criterion = trained_by(str(tmp_path), detector)
    assert str(criterion) == str(detr_criterion())
    assert "mine.py" in caplog.text
    assert str(trained_by("embedded:small", detector)) == str(detr_criterion())


def test_a_comparison_shows_every_query_of_an_object(detector: Detector, example: Example) -> None:
    scene = looked(detector, example)
    one, three = (solve(scene, Knobs(matcher=name)) for name in ("Hungarian", "one to many"))
    told = differences(one, three, detector.names, one_model=True)
    for target in range(len(example.boxes)):
        queries = [pair.query for pair in three.layer(4).pairs if pair.target == target]
        assert f"<td>{', '.join(f'q{query}' for query in queries)}</td>" in told


def test_boxes_of_two_models_are_compared_by_how_they_lie(detector: Detector, example: Example) -> None:
    """Their queries have nothing to do with each other."""
    scene = looked(detector, example)
    turned = replace(
        scene.predictions, logits=scene.predictions.logits.roll(3, 2), boxes=scene.predictions.boxes.roll(3, 2)
    )
    one, other = solve(scene, Knobs()), solve(replace(scene, predictions=turned), Knobs())
    assert differences(one, other, detector.names, one_model=True).count(">other<") == len(example.boxes)
    assert ">other<" not in differences(one, other, detector.names, one_model=False)
    worse = replace(turned, boxes=(turned.boxes * 0.8))
    told = differences(one, solve(replace(scene, predictions=worse), Knobs()), detector.names, one_model=False)
    assert told.count("left lies better") == len(example.boxes)


def test_padding_counts_objects_and_not_their_queries(detector: Detector, example: Example) -> None:
    told = padding(solve(looked(detector, example), Knobs(matcher="one to many")), 4)
    objects = len(example.boxes)
    assert f"{objects} objects, each for several queries, {3 * objects} in all, and {25 - 3 * objects} times" in told


def test_boxes_that_reach_beyond_their_image_are_cut_as_in_training(detector: Detector, tmp_path: Path) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    boxes = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "circle"}],
    }
    boxes["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 40, 80, 60], "area": 4800, "iscrowd": 0}
    ]
    (tmp_path / "a.json").write_text(json.dumps(boxes))
    (one,) = examples_of("embedded:small", detector.names, f"coco:{tmp_path}/a.json")
    assert one.boxes == [[50, 40, 100, 80]]
    assert solve(looked(detector, one), Knobs()).layer(4).pairs


@pytest.mark.parametrize(
    ("told", "box"),
    [("0.1 0.2 0.5 0.6 17", [0.1, 0.2, 0.5, 0.6]), ("0.5 0.6 0.1 0.2", [0.1, 0.2, 0.5, 0.6]), ("-1 0 2 1 3", [0, 0, 1, 1]),
     ("", None), ("1 2 3", None), ("a b c d", None)],
)  # fmt: skip
def test_what_is_drawn_in_the_picture_is_an_object(
    detector: Detector, example: Example, told: str, box: list[float] | None
) -> None:
    assert corners_of(told) == box
    scene = looked(detector, example)
    added, words = Microscope(detector, {}, detr_criterion()).add(scene, told, detector.names[2])
    assert added is not None
    assert len(added.boxes) == len(scene.boxes) + (box is not None)
    assert words == (f"A {detector.names[2]} was added." if box else "")
    if box:
        assert added.boxes[-1].tolist() == pytest.approx(
            [side * edge for side, edge in zip(box, scene.sides.tolist(), strict=True)]
        )


def test_what_is_shown_is_of_the_layer_and_of_these_knobs(detector: Detector, example: Example) -> None:
    """By plain arithmetic on what the model says: each part at an early layer, with no-object weighing three tenths."""
    scene = looked(detector, example)
    solved = solve(scene, Knobs(eos_coef=0.3))
    layer = 1
    said = scene.predictions.logits[layer - 1, 0]
    pairs = {pair.target: pair for pair in solved.layer(layer).pairs}
    truth = torch.full((25,), said.shape[1] - 1)
    for target, pair in pairs.items():
        truth[pair.query] = scene.labels[target]
    weights = torch.ones(said.shape[1])
    weights[-1] = 0.3
    each = torch.nn.functional.cross_entropy(said, truth, weights, reduction="none") / weights[truth].sum()
    own = torch.tensor([pair.query for pair in pairs.values()])
    matched, free = (float(part) for part in (each[own].sum(), each.sum() - each[own].sum()))
    assert solved.losses()["loss_ce"][layer - 1] == (pytest.approx(matched, rel=1e-4), pytest.approx(free, rel=1e-4))
    full = free / 0.3 / (matched + free / 0.3)
    words = padding(solved, layer)
    assert f"it has {free / (matched + free):.0%} of" in words
    assert f"it would be {full:.0%}" in words
    picture, table, heat, *_ = drawn(solved, layer, "whole", detector.names)
    for pair in pairs.values():
        probability = said.softmax(-1)[pair.query, int(scene.labels[pair.target])]
        assert f"<td>{float(probability):.2f}</td>" in table
        assert f"<td>{pair.regret:.2f}</td></tr>" in table
        assert f">{pair.cost:.2f}</td>" in heat
        x, _, width, _ = (scene.predictions.boxes[layer - 1, 0, pair.query] * scene.shape[0]).tolist()
        assert f'class="said" x="{x - width / 2:.1f}"' in picture
    assert drawn(solved, 4, "whole", detector.names)[2] != heat


def test_of_a_class_loss_without_such_a_weight_nothing_is_said(detector: Detector, example: Example) -> None:
    own = SetCriterion(HungarianMatcher(), [SoftmaxFocalLoss(weight=1.0)])
    words = padding(solve(looked(detector, example), Knobs(own=own)), 4)
    assert "weighing" not in words
    assert "padded to 25: 3 objects and 22 times" in words


def test_trying_with_fewer_queries_than_objects() -> None:
    costs = np.random.default_rng(0).normal(size=(5, 3, 2))
    rows, columns = _cheapest(costs)
    expected = by_scipy(costs)
    for one, place in zip(costs, range(5), strict=True):
        assert one[rows[place], columns[place]].sum() == pytest.approx(
            one[expected[0][place], expected[1][place]].sum()
        )


def test_two_images_of_one_name_are_two_files(example: Example, tmp_path: Path) -> None:
    assert example.saved(tmp_path, 1) != example.saved(tmp_path, 2)


def test_each_side_is_solved_by_its_own_weights(detector: Detector, example: Example) -> None:
    scene = looked(detector, example)
    sides = Sides(detector, detector, {})
    left, right, told = sides.show(Both(scene, scene), "Hungarian", 1, 5, 2, 0.1, "greedy", 0, 5, 0, 0.7)
    for shown, knobs in ((left, Knobs()), (right, Knobs((0.0, 5.0, 0.0), "greedy", 0.7))):
        for pair in solve(scene, knobs).layer(4).pairs:
            assert f"query {pair.query}, cost {pair.cost:.2f}<" in shown
        lost = sum(sum(pair[-1]) for pair in solve(scene, knobs).losses().values())
        assert f"<td>{lost:.3f}</td>" in told
    said = sides.show(Both(scene, scene), "Hungarian", 0, 0, 0, 0.1, "greedy", 0, 5, 0, 0.1)
    assert "All weights of the costs are 0" in said[0]
    assert said[1:] == ("", "")


def test_classes_have_colours_of_their_own(detector: Detector, example: Example) -> None:
    picture, table, *_ = drawn(solve(looked(detector, example), Knobs()), 4, "whole", detector.names)
    labels = example.labels(detector.names)
    assert len(set(labels)) > 1
    for label in labels:
        colour = "#{:02x}{:02x}{:02x}".format(*class_color(label))
        assert f"--own:{colour}" in picture
        assert f"background:{colour}" in table


def test_a_field_that_was_emptied_is_answered(detector: Detector, example: Example) -> None:
    microscope = Microscope(detector, {}, detr_criterion())
    assert "<svg" in microscope.show(looked(detector, example), None, "Hungarian", None, "whole", None, 5.0, None)[0]  # type: ignore[arg-type]
