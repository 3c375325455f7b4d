from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch
from torch import nn

from detr_ft.criterion import HungarianMatcher, detr_criterion
from detr_ft.errors import CriterionError, InputError, TargetError
from detr_ft.structures import Activation, Detections, Matches, Predictions, StepTotals, Targets

ragged = st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple)


def test_shapes_that_do_not_fit_raise() -> None:
    logits, boxes = torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    with pytest.raises(ValueError, match=r"boxes must be \[2, 1, 3, 4\]"):
        Predictions(logits, boxes[:, :, :2])
    with pytest.raises(ValueError, match=r"logits \[L, B, Q, C\]"):
        Predictions(logits[0], boxes[0])
    with pytest.raises(ValueError, match=r"'corners': \[2, 1, 2\]"):
        Predictions(logits, boxes, extras={"corners": torch.zeros(2, 1, 2)})
    with pytest.raises(ValueError, match="counts"):
        Targets(torch.zeros(2), torch.zeros(2, 4), torch.zeros(2), (1,))


def test_predictions_and_targets_of_other_types_raise() -> None:
    logits, boxes = torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4)
    with pytest.raises(CriterionError, match="must be tensors, got logits list, corners ndarray"):
        Predictions(logits.tolist(), boxes, extras={"corners": np.zeros(3)})  # type: ignore[arg-type, dict-item]
    with pytest.raises(TargetError, match="must be tensors, got boxes list"):
        Targets(torch.zeros(0), [], torch.zeros(0), (0,))  # type: ignore[arg-type]


GOOD: dict[str, Any] = {"class_labels": torch.tensor([1, 0]), "boxes": torch.full((2, 4), 0.5)}
META = torch.device("meta")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"class_labels": GOOD["class_labels"]}, "class_labels"),
        ({**GOOD, "boxes": GOOD["boxes"].tolist()}, "as tensors, got boxes list. Convert with torch.as_tensor"),
        ({"class_labels": [1, 0], "boxes": None}, "got class_labels list and boxes NoneType"),
        ({"labels": GOOD["class_labels"], "boxes": GOOD["boxes"]}, "class_labels missing, there are labels, boxes"),
        ({}, "class_labels and boxes missing, there are no keys"),
        ({**GOOD, "boxes": GOOD["boxes"][:1]}, r"boxes must be \[2, 4\] beside 2 class_labels, got \[1, 4\]"),
        ({**GOOD, "boxes": torch.full((2, 5), 0.5)}, r"boxes must be \[2, 4\] .*got \[2, 5\]"),
        (
            {**GOOD, "class_labels": torch.zeros(0).long()},
            r"boxes must be \[0, 4\] beside 0 class_labels, got \[2, 4\]",
        ),
        ({**GOOD, "class_labels": torch.tensor([[1], [0]])}, r"class_labels must be \[T\], got \[2, 1\]"),
        ({**GOOD, "class_labels": torch.tensor(1)}, r"class_labels must be \[T\], got \[\]"),
        ({**GOOD, "class_labels": torch.tensor([0.5, 1])}, r"class_labels must be integers, got torch\.float32"),
        ({**GOOD, "class_labels": torch.tensor([True, False])}, r"class_labels must be integers, got torch\.bool"),
        ({**GOOD, "boxes": torch.full((2, 4), 7)}, r"boxes must be cxcywh in fractions of the image, got torch\.int64"),
        ({**GOOD, "boxes": GOOD["boxes"].to(META)}, "is on meta, image 0 on cpu"),
        ([GOOD], r"must have class_labels \[T\] and boxes \[T, 4\] in a mapping, got a list"),
        (None, "in a mapping, got a NoneType"),
    ],
)
def test_labels_that_do_not_fit_are_reported_with_image_and_field(labels: Any, words: str) -> None:
    with pytest.raises(TargetError, match=f"labels: image 1 of the batch: .*{words}"):
        Targets.from_labels([GOOD, labels], torch.device("cpu"))


@pytest.mark.parametrize("labels", [GOOD, None, "text", torch.zeros(2), 3, iter([GOOD])])
def test_labels_are_a_list(labels: Any) -> None:
    with pytest.raises(TargetError, match="labels: must be a list with a mapping for each image"):
        Targets.from_labels(labels, torch.device("cpu"))


def test_the_faults_of_several_images_are_reported_together() -> None:
    with pytest.raises(TargetError) as caught:
        Targets.from_labels([{}] * 100, torch.device("cpu"))
    assert len(caught.value.problems) == 5


def test_images_without_objects_may_have_empty_tensors_of_any_type() -> None:
    empty = {"class_labels": torch.tensor([]), "boxes": torch.tensor([])}
    for labels in ([empty], [empty, GOOD], [GOOD, empty]):
        targets = Targets.from_labels(labels, torch.device("cpu"))
        assert targets.labels.dtype == torch.long
        assert targets.counts == tuple(len(of_image["class_labels"]) for of_image in labels)


@pytest.mark.parametrize("rows", [("enc",), ("enc", "enc")])
def test_rows_are_as_many_different_names_as_layers(rows: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="2 different names"):
        Predictions(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 3, 4), rows=rows)


def test_layers_and_images_slice_every_field() -> None:
    predictions, _, _ = random_batch(0, (2, 1, 0))
    assert predictions.rows == ("0", "1", "")
    extras = {"corners": torch.rand(3, 3, 9, 2, requires_grad=True)}
    rich = Predictions(predictions.logits, predictions.boxes, "sigmoid", ("enc", "0", ""), extras)
    assert rich.layers(0, 3) is rich
    first, last = rich.layers(0, 2), rich.images([2]).detach()
    assert (first.rows, first.activation) == (("enc", "0"), "sigmoid")
    assert torch.equal(first.logits, rich.logits[:2])
    assert torch.equal(first.extras["corners"], extras["corners"][:2])
    assert (last.rows, last.activation) == (rich.rows, "sigmoid")
    assert torch.equal(last.boxes, rich.boxes[:, 2:])
    assert torch.equal(last.extras["corners"], extras["corners"][:, 2:])
    assert not any(values.requires_grad for values in (last.logits, last.boxes, last.extras["corners"]))


def test_classes_by_softmax() -> None:
    logits = torch.tensor([[[[2.0, 0.0, 1.0], [0.0, 1.0, 3.0], [1.0, 1.0, 1.0]]]])
    predictions = Predictions(logits, torch.zeros(1, 1, 3, 4))
    assert predictions.num_classes == 2
    assert torch.equal(predictions.probabilities, logits.softmax(-1))
    scores, labels = predictions.best
    assert torch.equal(scores, logits.softmax(-1)[..., :2].amax(-1))
    assert labels.tolist() == [[[0, 1, 0]]]
    assert torch.equal(predictions.objectness, 1 - logits.softmax(-1)[..., 2])
    assert predictions.most_probable.tolist() == [[[0, 2, 0]]]


def test_classes_by_sigmoid() -> None:
    logits = torch.tensor([[[[2.0, 0.0, 1.0], [-1.0, -2.0, -3.0], [-1.0, 0.0, -1.0]]]])
    predictions = Predictions(logits, torch.zeros(1, 1, 3, 4), "sigmoid")
    assert predictions.num_classes == 3
    assert torch.equal(predictions.probabilities, logits.sigmoid())
    scores, labels = predictions.best
    assert torch.equal(scores, logits.sigmoid().amax(-1))
    assert labels.tolist() == [[[0, 0, 1]]]
    assert torch.equal(predictions.objectness, scores)
    assert predictions.most_probable.tolist() == [[[0, 3, 1]]]


def test_half_precision_gives_probabilities_in_full() -> None:
    logits = torch.randn(1, 1, 2, 4, generator=torch.Generator().manual_seed(0)).half()
    predictions = Predictions(logits, torch.zeros(1, 1, 2, 4))
    assert torch.equal(predictions.probabilities, logits.float().softmax(-1))


@settings(deadline=None, max_examples=30)
@given(counts=ragged)
def test_the_image_of_a_target(counts: tuple[int, ...]) -> None:
    _, targets, _ = random_batch(0, counts)
    assert [targets.image_of(target) for target in range(len(targets.labels))] == targets.image.tolist()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_log_probabilities_and_their_gradient(activation: Activation) -> None:
    batch, _, _ = random_batch(0, (2, 1), dtype=torch.float64)
    predictions = replace(batch, activation=activation)
    classes = torch.randint(6, predictions.logits.shape[:3], generator=torch.Generator().manual_seed(0))
    logarithm = {"softmax": lambda logits: logits.log_softmax(-1), "sigmoid": nn.functional.logsigmoid}[activation]
    plain = logarithm(predictions.logits)
    expected = plain.gather(-1, classes[..., None])[..., 0]
    torch.testing.assert_close(predictions.log_probabilities, plain.detach())
    assert not predictions.log_probabilities.requires_grad
    for _ in range(2):  # each call has its own graph
        mine = predictions.log_probability(classes)
        torch.testing.assert_close(mine, expected)
        weights = torch.arange(mine.numel()).view_as(mine) / 7.0
        (gradient,) = torch.autograd.grad((mine * weights).sum(), predictions.logits)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), predictions.logits, retain_graph=True)
        torch.testing.assert_close(gradient, wanted)


def test_gradients_have_the_precision_of_the_logits() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    logits, boxes = (values.detach().bfloat16().requires_grad_() for values in (predictions.logits, predictions.boxes))
    loss, _ = detr_criterion()(Predictions(logits, boxes), targets)
    assert [values.dtype for values in torch.autograd.grad(loss, (logits, boxes))] == [torch.bfloat16] * 2


def test_values_changed_in_place_are_computed_again() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    detr_criterion()(predictions, targets)
    with torch.no_grad():
        predictions.logits.mul_(0.5)
        predictions.boxes.mul_(0.9)
    fresh = Predictions(predictions.logits.detach().clone(), predictions.boxes.detach().clone())
    assert torch.equal(predictions.log_probabilities, fresh.log_probabilities)
    assert torch.equal(predictions.cxcywh, fresh.cxcywh)


def test_inference_mode_gives_the_same_loss() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    expected = detr_criterion()(predictions, targets)[0].detach()
    with torch.inference_mode():
        copied = Predictions(predictions.logits.clone(), predictions.boxes.clone())
        torch.testing.assert_close(detr_criterion()(copied, targets)[0], expected)


def test_the_number_of_boxes_comes_from_the_step_or_the_batch() -> None:
    _, targets, labels = random_batch(0, (2, 1))
    assert targets.num_boxes == 3
    assert random_batch(0, (0, 0))[1].num_boxes == 1
    device = torch.device("cpu")
    assert Targets.from_labels(labels, device, step=StepTotals(4, torch.tensor([2.0, 5.0]))).num_boxes == 7
    assert Targets.from_labels(labels, device, step=StepTotals(4, torch.zeros(2))).num_boxes == 1
    # The whole step has at least one target, before it is divided by the processes.
    for objects, expected in ((0, 0.25), (1, 0.25), (6, 1.5)):
        assert StepTotals(2, torch.tensor([0.0, objects / 4]), processes=4).num_boxes == expected
    assert Targets.from_labels([], device).counts == ()


def test_the_targets_of_an_image_are_a_batch() -> None:
    _, targets, labels = random_batch(0, (2, 0, 3))
    alone = targets.of_image(2)
    assert (alone.counts, alone.image.tolist(), alone.num_boxes) == ((3,), [0, 0, 0], 5)
    assert torch.equal(alone.boxes, labels[2]["boxes"])
    assert torch.equal(alone.labels, labels[2]["class_labels"])
    assert targets.of_image(1).counts == (0,)


def test_matches_gather_assign_and_sum() -> None:
    predictions, targets, _ = random_batch(0, (2, 0, 1))
    matches = HungarianMatcher()(predictions, targets)
    index = matches.layer, matches.image, matches.query
    assert torch.equal(matches.predicted(predictions.boxes), predictions.boxes[index])
    assert torch.equal(matches.target_values(targets.boxes), targets.boxes[matches.target])
    values = matches.assign(torch.full(predictions.logits.shape[:3], -1), matches.target)
    assert torch.equal(values[index], matches.target)
    assert int((values >= 0).sum()) == len(matches.layer)
    sums = matches.per_layer(torch.ones(len(matches.layer)))
    assert sums.tolist() == [3, 3, 3]
    joined = Matches.join([matches, matches])
    assert joined.layer.tolist() == [*matches.layer.tolist(), *(matches.layer + 3).tolist()]


def detections() -> Detections:
    boxes = torch.tensor([[1.0, 2, 4, 8], [0, 0, 2, 2], [5, 5, 6, 7]])
    return Detections(boxes, torch.tensor([0.75, 0.5, 0.25]), torch.tensor([1, 0, 1]), ("cat", "dog"))


def test_detections_are_a_sequence_of_box_score_and_name() -> None:
    some = detections()
    assert len(some) == 3
    assert [(box, score, name) for box, score, name in some] == [some[index] for index in range(3)]
    assert some[0] == ((1.0, 2.0, 4.0, 8.0), 0.75, "dog")
    assert some[-1].name == "dog"
    assert some[-1].box == (5.0, 5.0, 6.0, 7.0)
    with pytest.raises(IndexError):
        some[3]
    assert list(some[:0]) == []
    assert len(Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))) == 0


@pytest.mark.parametrize(
    "index",
    [
        slice(1, None),
        torch.tensor([False, True, True]),
        torch.tensor([1, 2]),
        torch.tensor([1, 2], dtype=torch.uint8),
        [1, 2],
        range(1, 3),
        [False, True, True],
        np.array([False, True, True]),
        np.array([1, 2]),
        np.array([-2, -1], dtype=np.int32),
    ],
    ids=repr,
)
def test_parts_of_detections_are_detections(index: slice | torch.Tensor | list[int] | np.ndarray) -> None:
    part = detections()[index]
    assert isinstance(part, Detections)
    assert [(score, name) for _, score, name in part] == [(0.5, "cat"), (0.25, "dog")]
    assert part.names == ("cat", "dog")


def test_detections_backward_and_none() -> None:
    assert detections()[::-1].scores.tolist() == [0.25, 0.5, 0.75]
    assert len(detections()[[]]) == len(detections()[torch.zeros(3, dtype=torch.bool)]) == 0


@pytest.mark.parametrize("index", [np.int64(1), torch.tensor(1), np.array(1), np.uint8(1)], ids=repr)
def test_an_integer_of_any_library_gives_one_detection(index: Any) -> None:
    assert detections()[index] == detections()[1]


@pytest.mark.parametrize(
    "index", ["disc", 1.0, None, True, torch.tensor(True), torch.tensor([1.0]), np.eye(3) > 0, ["disc"]], ids=repr
)
def test_other_indices_are_refused(index: Any) -> None:
    with pytest.raises(TypeError, match=r"integer, a slice, a mask .*name == CLASS"):
        detections()[index]


def test_a_mask_has_a_value_for_each_detection() -> None:
    with pytest.raises(IndexError, match=r"3 values, .* got 2"):
        detections()[np.array([True, False])]


def test_tensors_of_detections_fit() -> None:
    boxes, scores, labels = torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, dtype=torch.long)
    wrong: list[tuple[Any, Any, Any, str]] = [
        (boxes, scores[:2], labels[:2], r"boxes \[3, 4\], scores \[2\]"),
        (boxes, scores, labels[:2], r"labels \[2\]"),
        (boxes[:, :3], scores, labels, r"boxes \[3, 3\]"),
        (boxes, scores, labels.float(), "labels must be integers"),
        (boxes.numpy(), scores, labels, "boxes ndarray.*as_tensor"),
    ]
    for *tensors, message in wrong:
        with pytest.raises(InputError, match=message):
            Detections(*tensors)


def test_labels_have_names_thresholds_and_category_ids() -> None:
    some = detections()
    with pytest.raises(InputError, match="label 1 is beyond the 1 names"):
        Detections(some.boxes, some.scores, some.labels, ["cat"])
    with pytest.raises(InputError, match="label 1 is beyond the 1 category_ids"):
        some.to_coco(image_id=1, category_ids=[1])
    with pytest.raises(InputError, match="label 1 is beyond the 1 thresholds"):
        some.above_each([0.5])


def test_detections_above_thresholds() -> None:
    assert detections().above(0.5).scores.tolist() == [0.75]
    assert detections().above_each([0.4, 0.8]).labels.tolist() == [0]
    assert detections().above(0.5).names == ("cat", "dog")


def test_detections_without_names_have_the_index() -> None:
    some = detections()
    assert [name for _, _, name in Detections(some.boxes, some.scores, some.labels)] == ["1", "0", "1"]


def test_detections_are_readable() -> None:
    assert repr(detections()[:2]) == "Detections(dog 0.75 [1, 2, 4, 8], cat 0.50 [0, 0, 2, 2])"
    many = detections()[torch.zeros(12, dtype=torch.long)]
    assert repr(many).endswith(", 7 more)")


def test_detections_as_coco_results() -> None:
    assert detections()[:2].to_coco(image_id=9, category_ids=[10, 30]) == [
        {"image_id": 9, "category_id": 30, "bbox": [1.0, 2.0, 3.0, 6.0], "score": 0.75},
        {"image_id": 9, "category_id": 10, "bbox": [0.0, 0.0, 2.0, 2.0], "score": 0.5},
    ]
    assert [row["category_id"] for row in detections().to_coco(image_id=9)] == [1, 0, 1]


def test_detections_for_supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = ModuleType("supervision")
    stub.Detections = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", stub)
    given = detections().to_supervision()
    assert (given.xyxy.dtype, given.xyxy.shape) == (np.float32, (3, 4))
    assert given.confidence.tolist() == [0.75, 0.5, 0.25]
    assert given.class_id.tolist() == [1, 0, 1]
    assert given.data["class_name"].tolist() == ["dog", "cat", "dog"]
    assert detections()[:0].to_supervision().xyxy.shape == (0, 4)


def test_without_supervision_the_package_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match="pip install supervision"):
        detections().to_supervision()
