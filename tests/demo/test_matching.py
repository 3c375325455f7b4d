"""The tab Matching and the endpoint `match` agree with the criterion."""

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
from compare_tab import CompareHandlers, ScenePair, differences
from examples import Example, load_examples
from exhaustive_matcher import ExhaustiveMatcher, cheapest_assignments
from matching import (
    AS_TRAINED,
    EXHAUSTIVE,
    HUNGARIAN,
    LOSS_NAMES,
    ONE_TO_MANY,
    MatchSettings,
    Scene,
    cost_names,
    costs_of,
    match_scene,
    predict_scene,
)
from matching_tab import MatchingHandlers, add_object, parse_corners, remove_last_object, render
from matching_view import TOTAL, matrix, padding
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
from detr_ft.models.attach import attach_criterion
from detr_ft.models.surgery import set_queries
from detr_ft.utils.drawing import class_color
from detr_ft.workflows.trained_criterion import trained_by


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("embedded:small")


@pytest.fixture(scope="module")
def example(detector: Detector) -> Example:
    return load_examples("embedded:small", detector.names, None)[0]


def scene_of(detector: Detector, example: Example) -> Scene:
    return predict_scene(detector, example.image, example.boxes, example.labels(detector.names))


def test_the_loss_is_the_training_loss_of_the_image(detector: Detector, example: Example) -> None:
    matched = match_scene(scene_of(detector, example), MatchSettings())
    criterion = detr_criterion()
    scene = matched.scene
    _, values = criterion(scene.predictions, scene.targets)
    weights = {"loss_ce": 1, "loss_bbox": 5, "loss_giou": 2}
    losses = matched.losses()
    for name in LOSS_NAMES:
        last = sum(losses[name][-1])
        assert last == pytest.approx(weights[name] * float(values[name]), rel=1e-4)
        assert sum(losses[name][0]) == pytest.approx(weights[name] * float(values[f"{name}_0"]), rel=1e-4)


def test_predictions_have_every_layer(detector: Detector, example: Example) -> None:
    predictions = detector.predictions(example.image)
    assert predictions.num_layers == detector.model.config.decoder_layers
    best = float(detector.detect([example.image])[0].scores[0])
    assert float(predictions.logits[-1, 0].softmax(-1)[:, :-1].max()) == pytest.approx(best, abs=1e-5)
    attached = attach_criterion(detector.model, detr_criterion())
    attached.detach()
    assert torch.equal(detector.predictions(example.image).logits, predictions.logits)


def test_settings_change_the_matching(detector: Detector, example: Example) -> None:
    scene = scene_of(detector, example)
    plain = match_scene(scene, MatchSettings())
    assert [pair.query for pair in plain.layer(4).pairs]
    only_class = match_scene(scene, MatchSettings(weights=(1.0, 0.0, 0.0)))
    assert not torch.equal(plain.layer(4).costs, only_class.layer(4).costs)
    many = match_scene(scene, MatchSettings(matcher=ONE_TO_MANY))
    assert len(many.layer(4).pairs) == 3 * len(example.boxes)
    equal = match_scene(scene, MatchSettings(eos_coef=1.0))
    assert sum(equal.losses()["loss_ce"][0]) > 0
    assert equal.losses()["loss_bbox"] == plain.losses()["loss_bbox"]


@pytest.mark.alone
def test_a_slider_updates_within_three_tenths_of_a_second(detector: Detector, example: Example) -> None:
    scene = scene_of(detector, example)
    spent = []
    for weight in (1.0, 2.0, 3.0, 4.0, 5.0):
        start = time.perf_counter()
        parts = render(match_scene(scene, MatchSettings(weights=(1.0, weight, 2.0))), 4, TOTAL, detector.names)
        spent.append(time.perf_counter() - start)
        assert all(parts)
    assert sorted(spent)[2] < 0.3


def test_the_page_shows_the_matching(detector: Detector, example: Example) -> None:
    matched = match_scene(scene_of(detector, example), MatchSettings())
    image, pairs, *_ = render(matched, 4, TOTAL, detector.names)
    queries = matched.scene.predictions.num_queries
    assert image.count('class="truth"') - 1 == len(example.boxes)  # one is in the legend
    assert image.count('class="unmatched"') - 1 == queries - len(example.boxes)
    for pair in matched.layer(4).pairs:
        assert f"← q{pair.query}<" in image
        assert f"<td>q{pair.query}</td>" in pairs
        assert f"<td>{pair.cost:.2f}</td>" in pairs
    heat = matrix(matched, 4, "GIoU", detector.names)
    assert heat.count('class="matched"') == len(example.boxes)
    costs = matched.layer(4).terms["GIoUCost"]
    assert all(f">{float(costs[pair.target, pair.query]):.2f}<" in heat for pair in matched.layer(4).pairs)
    padded = padding(matched, 4)
    assert padded.count('class="object"') == len(example.boxes)
    assert padded.count('class="none"') == queries - len(example.boxes)


def test_objects_are_added_and_removed(detector: Detector, example: Example) -> None:
    scene = scene_of(detector, example).with_truth([], [])
    assert "No objects:" in render(match_scene(scene, MatchSettings()), 4, TOTAL, detector.names)[1]
    extended = add_object(scene, [10, 10, 60, 60], 2)
    assert extended.predictions is scene.predictions
    assert len(match_scene(extended, MatchSettings()).layer(4).pairs) == 1
    assert len(remove_last_object(extended)[0].boxes) == 0
    assert remove_last_object(None)[0] is None


def test_class_names_are_escaped(detector: Detector, example: Example) -> None:
    names = ["<img src=x onerror=alert(1)>"] * len(detector.names)
    for part in render(match_scene(scene_of(detector, example), MatchSettings()), 4, TOTAL, names):
        assert not re.search(r"<img src=x", part)


def test_an_object_without_a_query_is_drawn(detector: Detector, example: Example) -> None:
    """Twenty-six objects, and twenty-five queries."""
    boxes = [[float(left), 10.0, float(left) + 20, 40.0] for left in range(26)]
    matched = match_scene(scene_of(detector, example).with_truth(boxes, [0] * 26), MatchSettings())
    image = render(matched, 4, TOTAL, detector.names)[0]
    assert image.count('class="truth"') - 1 == 26
    assert image.count("← no query<") == 1


def test_a_pair_without_alternative_has_a_null_regret(tmp_path: Path) -> None:
    alone = Detector.load("embedded:small")
    set_queries(alone.model, 1, torch.ones(25))
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    result = match(alone, str(tmp_path / "black.png"), [{"class": "circle", "box": [5, 10, 25, 40]}], None)
    assert [(pair["query"], pair["regret"], pair["instead"]) for pair in result["pairs"]] == [(0, None, None)]
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize("weights", [{"class": "much"}, {"L1": -1}, {"GIoU": float("nan")}, {"iou": 1}, [1, 2, 3]])
def test_invalid_weights_are_rejected(detector: Detector, tmp_path: Path, weights: object) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    with pytest.raises(gr.Error, match="weights must map"):
        match(detector, str(tmp_path / "black.png"), [], weights)


def test_objects_of_other_classes_are_left_out_or_rejected(detector: Detector) -> None:
    with pytest.raises(InputError, match=r"--data generated:workshop.*Use data with"):
        load_examples("embedded:small", detector.names, "generated:workshop?train=0&validation=2&edge=64")
    names = [name for name in detector.names if name != "circle"]
    examples = load_examples("embedded:small", names, "generated:shapes?train=0&validation=12&edge=64")
    assert "circle" not in {name for example in examples for name in example.class_names}
    assert any(example.class_names for example in examples)
    assert all(len(example.boxes) == len(example.class_names) for example in examples)


@pytest.mark.parametrize("objects", [1, 2, 3, 4])
def test_exhaustive_search_agrees_with_the_hungarian_algorithm(detector: Detector, objects: int) -> None:
    random = torch.Generator().manual_seed(objects)
    for example in load_examples("embedded:small", detector.names, None):
        corners = torch.rand(objects, 2, generator=random) * 60
        boxes = torch.hstack([corners, corners + 5 + 20 * torch.rand(objects, 2, generator=random)]).tolist()
        scene = predict_scene(detector, example.image, boxes, [0] * objects)
        exhaustive, hungarian = (
            [pair.cost for pair in match_scene(scene, MatchSettings(matcher=name)).layer(4).pairs]
            for name in (EXHAUSTIVE, HUNGARIAN)
        )
        assert len(exhaustive) == objects
        assert sum(exhaustive) == pytest.approx(sum(hungarian), abs=1e-5)


def test_exhaustive_search_is_limited(detector: Detector, example: Example) -> None:
    scene = scene_of(detector, example).with_truth([[0.0, 0.0, 9.0, 9.0]] * 5, [0] * 5)
    handlers = MatchingHandlers(detector, {}, detr_criterion())
    message = handlers.show(scene, 4, EXHAUSTIVE, 0.1, TOTAL, 1.0, 5.0, 2.0)
    assert "4 objects, got 5" in message[0]
    with pytest.raises(ValueError, match="4 objects, got 5"):
        ExhaustiveMatcher(DETR_COSTS)(scene.predictions, scene.targets)


CODE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Width:
    weight: float = 1.0

    def __call__(self, predictions, targets):
        widths = predictions.boxes[:, targets.image, :, 2]
        return (widths - targets.boxes[None, :, None, 2]).abs()
"""
RECIPE = """
model: {checkpoint: "embedded:small"}
data: {source: "generated:shapes?train=4&validation=2"}
criterion:
  matcher: {use: HungarianMatcher, costs: [{use: ClassCost, weight: 1}, {use: GIoUCost, weight: 2}, {use: "mine.py:Width", weight: 3}]}
  losses: [{use: CrossEntropyLoss, weight: 1}, {use: BoxL1Loss, weight: 5}]
train: {output_dir: runs/mine}
"""


def test_own_terms_are_shown_and_weighted(detector: Detector, example: Example, tmp_path: Path) -> None:
    """A cost from a file beside the recipe is named in matrix, pairs and sliders."""
    (tmp_path / "mine.py").write_text(CODE)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    criterion = trained_by(str(tmp_path), detector, trust_code=True)
    assert cost_names(criterion) == {"ClassCost": "class", "GIoUCost": "GIoU", "Width": "Width"}
    assert [cost.weight for cost in costs_of(criterion)] == [1.0, 2.0, 3.0]
    scene = scene_of(detector, example)
    for weights, zero in (((1.0, 2.0, 3.0), False), ((1.0, 2.0, 0.0), True)):
        matched = match_scene(scene, MatchSettings(weights, base=criterion))
        assert bool((matched.layer(4).terms["Width"] == 0).all()) == zero
        parts = render(matched, 4, "Width", detector.names)
        assert "Width cost, weighted" in parts[2]
        assert '<th scope="col">Width</th>' in parts[1]


def test_the_matcher_of_the_training(detector: Detector, example: Example) -> None:
    own = SetCriterion(LayerMatcher(last=HungarianMatcher(), auxiliary=OneToManyMatcher(k=2)), detr_criterion().losses)
    matched = match_scene(scene_of(detector, example), MatchSettings(matcher=AS_TRAINED, base=own))
    objects = len(example.boxes)
    assert [len(matched.layer(number).pairs) for number in (1, 2, 3, 4)] == [2 * objects] * 3 + [objects]


def test_an_invalid_recipe_is_logged_and_replaced_by_detrs_criterion(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)  # and no mine.py
    criterion = trained_by(str(tmp_path), detector)
    assert str(criterion) == str(detr_criterion())
    assert "mine.py" in caplog.text
    assert str(trained_by("embedded:small", detector)) == str(detr_criterion())


def test_a_comparison_shows_all_queries_of_an_object(detector: Detector, example: Example) -> None:
    scene = scene_of(detector, example)
    single, several = (match_scene(scene, MatchSettings(matcher=name)) for name in (HUNGARIAN, ONE_TO_MANY))
    html = differences(single, several, detector.names, one_model=True)
    for target in range(len(example.boxes)):
        queries = [pair.query for pair in several.layer(4).pairs if pair.target == target]
        assert f"<td>{', '.join(f'q{query}' for query in queries)}</td>" in html


def test_boxes_of_two_models_are_compared_by_iou(detector: Detector, example: Example) -> None:
    """The queries of two models are unrelated."""
    scene = scene_of(detector, example)
    turned = replace(
        scene.predictions, logits=scene.predictions.logits.roll(3, 2), boxes=scene.predictions.boxes.roll(3, 2)
    )
    first, other = match_scene(scene, MatchSettings()), match_scene(replace(scene, predictions=turned), MatchSettings())
    assert differences(first, other, detector.names, one_model=True).count(">different<") == len(example.boxes)
    assert ">different<" not in differences(first, other, detector.names, one_model=False)
    worse = replace(turned, boxes=(turned.boxes * 0.8))
    html = differences(
        first, match_scene(replace(scene, predictions=worse), MatchSettings()), detector.names, one_model=False
    )
    assert html.count("left is better") == len(example.boxes)


def test_padding_counts_objects_and_their_queries(detector: Detector, example: Example) -> None:
    html = padding(match_scene(scene_of(detector, example), MatchSettings(matcher=ONE_TO_MANY)), 4)
    objects = len(example.boxes)
    assert f"{objects} objects, matched with {3 * objects} queries, and {25 - 3 * objects} ×" in html


def test_boxes_are_clipped_to_the_image_as_in_training(detector: Detector, tmp_path: Path) -> None:
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    boxes = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "circle"}],
    }
    boxes["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 40, 80, 60], "area": 4800, "iscrowd": 0}
    ]
    (tmp_path / "a.json").write_text(json.dumps(boxes))
    (clipped,) = load_examples("embedded:small", detector.names, f"coco:{tmp_path}/a.json")
    assert clipped.boxes == [[50, 40, 100, 80]]
    assert match_scene(scene_of(detector, clipped), MatchSettings()).layer(4).pairs


@pytest.mark.parametrize(
    ("text", "box"),
    [("0.1 0.2 0.5 0.6 17", [0.1, 0.2, 0.5, 0.6]), ("0.5 0.6 0.1 0.2", [0.1, 0.2, 0.5, 0.6]), ("-1 0 2 1 3", [0, 0, 1, 1]),
     ("", None), ("1 2 3", None), ("a b c d", None)],
)  # fmt: skip
def test_a_drawn_box_is_an_object(detector: Detector, example: Example, text: str, box: list[float] | None) -> None:
    assert parse_corners(text) == box
    scene = scene_of(detector, example)
    added, message = MatchingHandlers(detector, {}, detr_criterion()).add_drawn_box(scene, text, detector.names[2])
    assert added is not None
    assert len(added.boxes) == len(scene.boxes) + (box is not None)
    assert message == (f"Added: {detector.names[2]}." if box else "")
    if box:
        assert added.boxes[-1].tolist() == pytest.approx(
            [side * edge for side, edge in zip(box, scene.sides.tolist(), strict=True)]
        )


def test_the_page_shows_the_layer_and_the_settings(detector: Detector, example: Example) -> None:
    """Computed from the predictions: each part at an early layer, with a weight of no-object of 0.3."""
    scene = scene_of(detector, example)
    matched = match_scene(scene, MatchSettings(eos_coef=0.3))
    layer = 1
    logits = scene.predictions.logits[layer - 1, 0]
    pairs = {pair.target: pair for pair in matched.layer(layer).pairs}
    truth = torch.full((25,), logits.shape[1] - 1)
    for target, pair in pairs.items():
        truth[pair.query] = scene.labels[target]
    weights = torch.ones(logits.shape[1])
    weights[-1] = 0.3
    each = torch.nn.functional.cross_entropy(logits, truth, weights, reduction="none") / weights[truth].sum()
    own = torch.tensor([pair.query for pair in pairs.values()])
    of_pairs, free = (float(part) for part in (each[own].sum(), each.sum() - each[own].sum()))
    assert matched.losses()["loss_ce"][layer - 1] == (pytest.approx(of_pairs, rel=1e-4), pytest.approx(free, rel=1e-4))
    full = free / 0.3 / (of_pairs + free / 0.3)
    html = padding(matched, layer)
    assert f"makes up {free / (of_pairs + free):.0%} of" in html
    assert f"it would be {full:.0%}" in html
    image, table, heat, *_ = render(matched, layer, TOTAL, detector.names)
    for pair in pairs.values():
        probability = logits.softmax(-1)[pair.query, int(scene.labels[pair.target])]
        assert f"<td>{float(probability):.2f}</td>" in table
        assert f"<td>{pair.regret:.2f}</td></tr>" in table
        assert f">{pair.cost:.2f}</td>" in heat
        x, _, width, _ = (scene.predictions.boxes[layer - 1, 0, pair.query] * scene.display_size[0]).tolist()
        assert f'class="predicted" x="{x - width / 2:.1f}"' in image
    assert render(matched, 4, TOTAL, detector.names)[2] != heat


def test_a_loss_without_a_weight_of_no_object_has_no_such_sentence(detector: Detector, example: Example) -> None:
    own = SetCriterion(HungarianMatcher(), [SoftmaxFocalLoss(weight=1.0)])
    html = padding(match_scene(scene_of(detector, example), MatchSettings(base=own)), 4)
    assert "At weight" not in html
    assert "padded to 25: 3 objects and 22 ×" in html


def test_exhaustive_search_with_fewer_queries_than_objects() -> None:
    costs = np.random.default_rng(0).normal(size=(5, 3, 2))
    rows, columns = cheapest_assignments(costs)
    expected = by_scipy(costs)
    for index, matrix_of_image in enumerate(costs):
        assert matrix_of_image[rows[index], columns[index]].sum() == pytest.approx(
            matrix_of_image[expected[0][index], expected[1][index]].sum()
        )


def test_images_of_the_same_name_are_two_files(example: Example, tmp_path: Path) -> None:
    assert example.save(tmp_path, 1) != example.save(tmp_path, 2)


def test_each_side_has_its_own_weights(detector: Detector, example: Example) -> None:
    scene = scene_of(detector, example)
    handlers = CompareHandlers(detector, detector, {})
    left, right, html = handlers.show(ScenePair(scene, scene), HUNGARIAN, 1, 5, 2, 0.1, "greedy", 0, 5, 0, 0.7)
    for shown, settings in ((left, MatchSettings()), (right, MatchSettings((0.0, 5.0, 0.0), "greedy", 0.7))):
        for pair in match_scene(scene, settings).layer(4).pairs:
            assert f"query {pair.query}, cost {pair.cost:.2f}<" in shown
        loss = sum(sum(parts[-1]) for parts in match_scene(scene, settings).losses().values())
        assert f"<td>{loss:.3f}</td>" in html
    messages = handlers.show(ScenePair(scene, scene), HUNGARIAN, 0, 0, 0, 0.1, "greedy", 0, 5, 0, 0.1)
    assert "All cost weights are 0" in messages[0]
    assert messages[1:] == ("", "")


def test_classes_have_different_colors(detector: Detector, example: Example) -> None:
    image, table, *_ = render(match_scene(scene_of(detector, example), MatchSettings()), 4, TOTAL, detector.names)
    labels = example.labels(detector.names)
    assert len(set(labels)) > 1
    for label in labels:
        color = "#{:02x}{:02x}{:02x}".format(*class_color(label))
        assert f"--own:{color}" in image
        assert f"background:{color}" in table


def test_an_empty_field_has_a_default(detector: Detector, example: Example) -> None:
    handlers = MatchingHandlers(detector, {}, detr_criterion())
    assert "<svg" in handlers.show(scene_of(detector, example), None, HUNGARIAN, None, TOTAL, None, 5.0, None)[0]  # type: ignore[arg-type]
