from __future__ import annotations

from typing import Any

import pytest
import torch
from support.random_batches import random_batch

from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    GIoUCost,
    GIoULoss,
    HungarianMatcher,
    IoUAwareLoss,
    OneToManyMatcher,
    SetCriterion,
    SigmoidFocalCost,
    SigmoidFocalLoss,
    SigmoidMatchabilityLoss,
    SigmoidQualityFocalLoss,
    SigmoidVarifocalLoss,
    check_cost,
    check_criterion,
    check_loss,
    explain,
)
from detr_ft.structures import Predictions, Targets

LOSSES: list[Any] = [
    SigmoidFocalLoss(),
    SigmoidFocalLoss(alpha=0.5, gamma=0),
    SigmoidQualityFocalLoss(),
    SigmoidVarifocalLoss(),
    SigmoidMatchabilityLoss(),
    SigmoidMatchabilityLoss(gamma=2, alpha=0.5),
    IoUAwareLoss(),
]
COSTS = [SigmoidFocalCost(), BoxL1Cost(), GIoUCost()]
BY_NAME: Any = lambda loss: type(loss).__name__  # noqa: E731


@pytest.mark.parametrize("loss", LOSSES, ids=BY_NAME)
def test_every_loss_passes_the_check(loss: Any) -> None:
    assert check_loss(loss) == []


def test_the_cost_passes_the_check() -> None:
    assert check_cost(SigmoidFocalCost()) == []


@pytest.mark.parametrize("loss", LOSSES, ids=BY_NAME)
@pytest.mark.parametrize("matcher", [HungarianMatcher(COSTS), OneToManyMatcher(2, COSTS)], ids=BY_NAME)
def test_a_criterion_of_each_loss_trains_correct_scores(loss: Any, matcher: Any) -> None:
    assert check_criterion(SetCriterion(matcher, [loss, BoxL1Loss(), GIoULoss()])) == []


@pytest.mark.parametrize("loss", LOSSES, ids=BY_NAME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("counts", [(3, 1), (0, 0), (0, 2), (12, 1)])
def test_extremes_have_finite_values_and_gradients(loss: Any, dtype: torch.dtype, counts: tuple[int, ...]) -> None:
    predictions, targets, _ = random_batch(3, counts)
    logits = (predictions.logits.detach() * 100).to(dtype).requires_grad_()
    boxes = predictions.boxes.detach().clone()
    boxes[..., ::2, 2:] = 0
    if sum(counts) > 3:
        boxes[:, 0, 1] = targets.boxes[0]  # exactly right
    extreme = Predictions(logits, boxes.to(dtype).requires_grad_(), "sigmoid")
    flat = Targets(targets.labels, targets.boxes * torch.tensor([1, 1, 0, 1]), targets.image, targets.counts)
    for truth in (targets, flat):
        value = loss(extreme, truth, HungarianMatcher(COSTS)(extreme, truth))
        assert value.shape == (3,)
        assert value.dtype == torch.float32
        assert value.isfinite().all()
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("constant", [False, True])
def test_the_gradient_of_negatives_is_that_of_their_formula(gamma: float, constant: bool) -> None:
    from detr_ft.criterion.sigmoid_losses import _Negative

    logits = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    negative = _Negative(0.7, gamma, constant)
    summed, each = negative.sum_of_classes(logits), negative(logits).sum(-1)
    torch.testing.assert_close(summed, each)
    weights = torch.rand(2, 3, 4, dtype=torch.float64)
    of_sum, of_each = (torch.autograd.grad((value * weights).sum(), logits)[0] for value in (summed, each))
    torch.testing.assert_close(of_sum, of_each)


def test_a_matching_of_sigmoid_scores_is_explained() -> None:
    predictions, targets, _ = random_batch(0, (2, 1))
    sigmoid = Predictions(predictions.logits, predictions.boxes, "sigmoid")
    criterion = SetCriterion(HungarianMatcher(COSTS), [SigmoidVarifocalLoss(), BoxL1Loss(), GIoULoss()])
    explanation = explain(criterion, sigmoid, targets)
    assert explanation


@pytest.mark.parametrize(
    ("kind", "parameters", "words"),
    [
        (SigmoidFocalLoss, {"alpha": 1.5}, "alpha must be in 0 to 1"),
        (SigmoidFocalLoss, {"gamma": 0.5}, "gamma must be 0, or at least 1"),
        (SigmoidQualityFocalLoss, {"beta": -1.0}, "beta must be 0"),
        (SigmoidVarifocalLoss, {"alpha": -0.1}, "alpha must be"),
        (SigmoidMatchabilityLoss, {"gamma": float("inf")}, "gamma must be"),
        (IoUAwareLoss, {"alpha": 2.0}, "alpha must be"),
    ],
)
def test_invalid_parameters_raise(kind: Any, parameters: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**parameters)
