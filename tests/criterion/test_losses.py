from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch
from torch import nn

from detr_ft.criterion import (
    BoxL1Loss,
    CardinalityError,
    CIoULoss,
    CriterionError,
    CrossEntropyLoss,
    DIoULoss,
    GIoULoss,
    HungarianMatcher,
    Loss,
    SmoothL1Loss,
    SoftmaxFocalLoss,
    SoftmaxMatchabilityLoss,
    SoftmaxQualityFocalLoss,
    SoftmaxVarifocalLoss,
    check_loss,
)
from detr_ft.criterion.base import PairLoss, QueryLoss
from detr_ft.structures import Matches, Predictions, Targets

CLASS_LOSSES: list[Any] = [
    CrossEntropyLoss(),
    CrossEntropyLoss(class_weights=(1, 2, 3, 4, 5), label_smoothing=0.1),
    SoftmaxFocalLoss(),
    SoftmaxQualityFocalLoss(),
    SoftmaxVarifocalLoss(),
    SoftmaxMatchabilityLoss(),
]
BOX_LOSSES: list[Any] = [BoxL1Loss(), SmoothL1Loss(), GIoULoss(), DIoULoss(), CIoULoss()]
BY_NAME: Any = lambda loss: type(loss).__name__  # noqa: E731


@pytest.mark.parametrize("loss", CLASS_LOSSES + BOX_LOSSES, ids=BY_NAME)
def test_every_built_in_loss_passes_the_check(loss: Loss) -> None:
    assert check_loss(loss) == []


def test_a_logged_term_passes_the_check() -> None:
    assert check_loss(CardinalityError()) == []


@pytest.mark.parametrize("loss", CLASS_LOSSES + BOX_LOSSES, ids=BY_NAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("counts", [(3, 1), (0, 0), (0, 2), (12, 1)])
def test_extremes_have_finite_values_and_gradients(loss: Loss, dtype: torch.dtype, counts: tuple[int, ...]) -> None:
    predictions, targets, _ = random_batch(3, counts)
    logits = (predictions.logits.detach() * 100).to(dtype).requires_grad_()
    boxes = predictions.boxes.detach().clone()
    boxes[..., ::2, 2:] = 0
    if sum(counts) > 3:
        boxes[:, 0, 1] = targets.boxes[0]  # exactly right
    boxes = boxes.to(dtype).requires_grad_()
    extreme = Predictions(logits, boxes)
    flat = Targets(targets.labels, targets.boxes * torch.tensor([1, 1, 0, 1]), targets.image, targets.counts)
    for truth in (targets, flat):
        value = loss(extreme, truth, HungarianMatcher()(extreme, truth))
        assert value.shape == (3,)
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        for gradient in torch.autograd.grad(value.sum(), (logits, boxes), allow_unused=True):
            assert gradient is None or gradient.isfinite().all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))
def test_the_parts_add_up(seed: int, counts: tuple[int, ...]) -> None:
    predictions, targets, _ = random_batch(seed, counts)
    matches = HungarianMatcher()(predictions, targets)
    for loss in CLASS_LOSSES:
        assert isinstance(loss, QueryLoss)
        parts = loss.per_query(predictions, targets, matches)
        assert parts.shape == predictions.logits.shape[:3]
        torch.testing.assert_close(parts.sum((1, 2)), loss(predictions, targets, matches))
    for loss in BOX_LOSSES:
        assert isinstance(loss, PairLoss)
        parts = loss.per_pair(predictions, targets, matches)
        assert len(parts) == len(matches.layer)
        torch.testing.assert_close(matches.per_layer(parts), loss(predictions, targets, matches))


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10_000),
    weights=st.none() | st.lists(st.floats(0.1, 5), min_size=5, max_size=5).map(tuple),
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
)
def test_cross_entropy_is_torchs(seed: int, weights: tuple[float, ...] | None, smoothing: float) -> None:
    predictions, targets, _ = random_batch(seed, (3, 0, 2))
    matches = HungarianMatcher()(predictions, targets)
    classes = torch.full((3, 3, 9), 5)
    classes[matches.layer, matches.image, matches.query] = targets.labels[matches.target]
    by_class = torch.tensor([*(weights or (1.0,) * 5), 0.1])
    expected = [
        nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), by_class, label_smoothing=smoothing)
        for logits, wanted in zip(predictions.logits, classes, strict=True)
    ]
    loss = CrossEntropyLoss(class_weights=weights, label_smoothing=smoothing)
    torch.testing.assert_close(loss(predictions, targets, matches), torch.stack(expected))


def test_focal_without_gamma_is_cross_entropy() -> None:
    predictions, targets, _ = random_batch(0, (3, 0, 2))
    matches = HungarianMatcher()(predictions, targets)
    torch.testing.assert_close(
        SoftmaxFocalLoss(eos_coef=0.1, gamma=0)(predictions, targets, matches),
        CrossEntropyLoss()(predictions, targets, matches),
    )


def test_focal_weights_wrong_queries_more() -> None:
    """The fraction of the loss from the worst query grows."""
    predictions, targets, _ = random_batch(0, (3, 2))
    matches = HungarianMatcher()(predictions, targets)
    fractions = [
        loss.per_query(predictions, targets, matches) / loss(predictions, targets, matches)[:, None, None]
        for loss in (CrossEntropyLoss(), SoftmaxFocalLoss(eos_coef=0.1))
    ]
    worst = fractions[0].flatten(1).argmax(-1, keepdim=True)
    assert (fractions[1].flatten(1).gather(1, worst) > fractions[0].flatten(1).gather(1, worst)).all()


@pytest.mark.parametrize(
    ("loss", "power"),
    [(SoftmaxQualityFocalLoss(), 1), (SoftmaxVarifocalLoss(), 1), (SoftmaxMatchabilityLoss(), 1.5)],
    ids=str,
)
def test_the_best_score_is_the_quality_of_the_box(loss: Loss, power: float) -> None:
    """The minimum over the logits has q (or q^gamma) for the class and the rest for no-object."""
    targets = Targets(torch.tensor([1]), torch.tensor([[0.5, 0.5, 0.4, 0.4]]), torch.tensor([0]), (1,))
    boxes = torch.tensor([[[[0.5, 0.5, 0.4, 0.24], [0.1, 0.1, 0.1, 0.1]]]])  # IoU 0.6, and one that is not matched
    logits = torch.zeros(1, 1, 2, 4, requires_grad=True)
    matches = Matches(*(torch.tensor([value]) for value in (0, 0, 0, 0)), num_boxes=torch.tensor([1.0]))
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for _ in range(600):
        optimizer.zero_grad()
        loss(Predictions(logits, boxes), targets, matches).sum().backward()
        optimizer.step()
    matched, free = logits.detach().softmax(-1)[0, 0]
    assert matched[1].item() == pytest.approx(0.6**power, abs=0.03)
    assert matched[3].item() == pytest.approx(1 - 0.6**power, abs=0.03)
    assert free[3] > 0.9


def test_a_pair_of_disjoint_boxes_is_a_negative() -> None:
    """Otherwise a confident query far from its object would have no gradient."""
    targets = Targets(torch.tensor([1]), torch.tensor([[0.8, 0.8, 0.1, 0.1]]), torch.tensor([0]), (1,))
    matches = Matches(*(torch.tensor([value]) for value in (0, 0, 0, 0)), num_boxes=torch.tensor([1.0]))
    logits = torch.tensor([[[[3.0, 0.0, 0.0]]]], requires_grad=True)
    predictions = Predictions(logits, torch.tensor([[[[0.2, 0.2, 0.1, 0.1]]]]))
    for loss in (SoftmaxQualityFocalLoss(), SoftmaxVarifocalLoss(), SoftmaxMatchabilityLoss()):
        (gradient,) = torch.autograd.grad(loss(predictions, targets, matches).sum(), logits)
        assert gradient[..., -1] < 0 < gradient[..., 0]


def test_smooth_l1_is_quadratic_near_and_linear_far() -> None:
    targets = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([0]), (1,))
    matches = Matches(*(torch.tensor([value]) for value in (0, 0, 0, 0)), num_boxes=torch.tensor([1.0]))

    def at(shift: float) -> float:
        boxes = torch.tensor([[[[0.5 + shift, 0.5, 0.2, 0.2]]]])
        return SmoothL1Loss(beta=0.1)(Predictions(torch.zeros(1, 1, 1, 2), boxes), targets, matches).item()

    assert at(0.05) == pytest.approx(0.05**2 / 0.2, rel=1e-4)
    assert at(0.3) == pytest.approx(0.3 - 0.05, rel=1e-4)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SmoothL1Loss(beta=0), "BoxL1Loss"),
        (lambda: SoftmaxFocalLoss(gamma=0.5), "gamma"),
        (lambda: CrossEntropyLoss(eos_coef=0), "eos_coef"),
        (lambda: SoftmaxFocalLoss(class_weights=(1, -1)), "above 0"),
        (lambda: SoftmaxFocalLoss(gamma=float("nan")), "gamma"),
        (lambda: CrossEntropyLoss(eos_coef=float("inf")), "finite number"),
        (lambda: CrossEntropyLoss(class_weights=(0, 1)), "above 0"),
        (lambda: CardinalityError(weight=1), "weight must be 0"),
        (lambda: CrossEntropyLoss(label_smoothing=1.5), "label_smoothing"),
    ],
)
def test_invalid_parameters_raise(build: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build()


def test_class_weights_must_be_as_many_as_classes() -> None:
    predictions, targets, _ = random_batch(0, (2,))
    matches = HungarianMatcher()(predictions, targets)
    with pytest.raises(CriterionError, match=r"3 values.*5 classes"):
        CrossEntropyLoss(class_weights=(1, 2, 3))(predictions, targets, matches)


class Sigmoid:
    """Binary cross-entropy, which many detectors train, but the softmax of DETR does not fit."""

    name, weight = "loss_sigmoid", 1.0

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        wanted = torch.zeros_like(predictions.logits)
        wanted[matches.layer, matches.image, matches.query, targets.labels[matches.target]] = 1
        return nn.functional.binary_cross_entropy_with_logits(predictions.logits, wanted, reduction="none").mean(
            (1, 2, 3)
        )


def test_check_loss_reports_a_loss_that_does_not_train_the_softmax() -> None:
    assert any("log_probability" in problem for problem in check_loss(Sigmoid()))


class Learning(nn.Module):
    """A term with learnable weights."""

    name, weight = "loss_learning", 1.0

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        return self.scale * BoxL1Loss()(predictions, targets, matches)


def test_check_loss_reports_learnable_weights() -> None:
    assert any("learnable weights" in problem for problem in check_loss(Learning()))


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=BY_NAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gradients_stay_finite_between_boxes_of_no_area(loss: Loss, dtype: torch.dtype) -> None:
    sides = torch.tensor([0.0, 1e-7, 1e-4, 0.1, 1.0])
    width, height = torch.cartesian_prod(sides, sides).unbind(1)
    for shift in (0.0, 1e-4):
        boxes = torch.stack([torch.full_like(width, 0.5), torch.full_like(width, 0.5), width, height], 1)
        for other in boxes:
            predicted = (boxes + torch.tensor([shift, 0, 0, 0])).to(dtype).view(1, 1, -1, 4).requires_grad_()
            index = torch.arange(len(boxes))
            zero = torch.zeros_like(index)
            truth = Targets(zero, other.expand(len(boxes), 4), zero, (len(boxes),))
            matches = Matches(zero, zero, index, index, torch.ones(1))
            value = loss(Predictions(torch.zeros(1, 1, len(boxes), 2), predicted), truth, matches)
            (gradient,) = torch.autograd.grad(value.sum(), predicted)
            assert value.isfinite().all()
            assert gradient.isfinite().all()
