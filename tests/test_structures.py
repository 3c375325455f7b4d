from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch

from detr_ft.criterion import HungarianMatcher, detr_criterion
from detr_ft.structures import Matches, Predictions, StepTotals, Targets

ragged = st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits \[L, B, Q, K\+1\]"):
        Predictions(torch.zeros(2, 1, 3, 4), torch.zeros(2, 1, 2, 4))
    with pytest.raises(ValueError, match="counts"):
        Targets(torch.zeros(2), torch.zeros(2, 4), torch.zeros(2), (1,))


@settings(deadline=None, max_examples=30)
@given(counts=ragged)
def test_the_image_of_a_target(counts: tuple[int, ...]) -> None:
    _, targets, _ = random_batch(0, counts)
    assert [targets.image_of(target) for target in range(len(targets.labels))] == targets.image.tolist()


def test_log_probabilities_are_those_of_the_softmax_with_their_gradient() -> None:
    predictions, _, _ = random_batch(0, (2, 1), dtype=torch.float64)
    classes = torch.randint(6, predictions.logits.shape[:3], generator=torch.Generator().manual_seed(0))
    plain = predictions.logits.log_softmax(-1)
    expected = plain.gather(-1, classes[..., None])[..., 0]
    torch.testing.assert_close(predictions.log_probabilities, plain.detach())
    for _ in range(2):  # a graph of its own for each
        mine = predictions.log_probability(classes)
        torch.testing.assert_close(mine, expected)
        weights = torch.arange(mine.numel()).view_as(mine) / 7.0
        (gradient,) = torch.autograd.grad((mine * weights).sum(), predictions.logits)
        (wanted,) = torch.autograd.grad((expected * weights).sum(), predictions.logits, retain_graph=True)
        torch.testing.assert_close(gradient, wanted)


def test_gradients_have_the_precision_of_the_logits() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    logits, boxes = (one.detach().bfloat16().requires_grad_() for one in (predictions.logits, predictions.boxes))
    loss, _ = detr_criterion()(Predictions(logits, boxes), targets)
    assert [one.dtype for one in torch.autograd.grad(loss, (logits, boxes))] == [torch.bfloat16] * 2


def test_what_is_changed_in_place_is_worked_out_again() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    detr_criterion()(predictions, targets)
    with torch.no_grad():
        predictions.logits.mul_(0.5)
        predictions.boxes.mul_(0.9)
    fresh = Predictions(predictions.logits.detach().clone(), predictions.boxes.detach().clone())
    assert torch.equal(predictions.log_probabilities, fresh.log_probabilities)
    assert torch.equal(predictions.cxcywh, fresh.cxcywh)


def test_inference_mode_is_as_good() -> None:
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
    assert Targets.from_labels([], device).counts == ()


def test_matches_gather_assign_and_sum() -> None:
    predictions, targets, _ = random_batch(0, (2, 0, 1))
    matches = HungarianMatcher()(predictions, targets)
    place = matches.layer, matches.image, matches.query
    assert torch.equal(matches.predicted(predictions.boxes), predictions.boxes[place])
    assert torch.equal(matches.target_values(targets.boxes), targets.boxes[matches.target])
    values = matches.assign(torch.full(predictions.logits.shape[:3], -1), matches.target)
    assert torch.equal(values[place], matches.target)
    assert int((values >= 0).sum()) == len(matches.layer)
    sums = matches.per_layer(torch.ones(len(matches.layer)))
    assert sums.tolist() == [3, 3, 3]
    joined = Matches.join([matches, matches])
    assert joined.layer.tolist() == [*matches.layer.tolist(), *(matches.layer + 3).tolist()]
