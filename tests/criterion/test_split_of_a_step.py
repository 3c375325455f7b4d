"""Loss and gradient of a step do not depend on the split of its images over processes and micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch

from detr_ft.criterion import (
    BoxL1Loss,
    CrossEntropyLoss,
    HungarianMatcher,
    OneToManyMatcher,
    SetCriterion,
    SoftmaxFocalLoss,
    SoftmaxMatchabilityLoss,
    SoftmaxQualityFocalLoss,
    SoftmaxVarifocalLoss,
    detr_criterion,
)
from detr_ft.structures import Predictions, StepTotals, Targets

WEIGHTED = SetCriterion(
    HungarianMatcher(),
    [
        CrossEntropyLoss(class_weights=(1, 2, 3, 4, 5), label_smoothing=0.1),
        SoftmaxFocalLoss(class_weights=(5, 1, 1, 1, 0.5)),
        SoftmaxQualityFocalLoss(),
        SoftmaxVarifocalLoss(),
        SoftmaxMatchabilityLoss(),
        BoxL1Loss(),
    ],
)
THREEFOLD = SetCriterion(OneToManyMatcher(k=3), detr_criterion().losses)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    counts=st.lists(st.integers(0, 3), min_size=8, max_size=8) | st.permutations([1, *[0] * 7]) | st.just([0] * 8),
    sizes=st.sampled_from([[8], [4, 4], [2, 2, 2, 2], [1] * 8, [5, 3], [1, 7]]),
    processes=st.sampled_from([1, 2, 4]),
)
@pytest.mark.parametrize("criterion", [detr_criterion(), WEIGHTED, THREEFOLD], ids=["default", "weighted", "one to 3"])
def test_loss_and_gradient_do_not_depend_on_the_split(
    criterion: SetCriterion, seed: int, counts: list[int], sizes: list[int], processes: int
) -> None:
    """`sizes` are the numbers of images of the micro-batches. Gradients of processes are averaged."""
    predictions, targets, labels = random_batch(seed, tuple(counts))
    whole, _ = criterion(predictions, targets)
    expected = torch.autograd.grad(whole, (predictions.logits, predictions.boxes))
    classes = torch.bincount(targets.labels, minlength=5).float()
    step = StepTotals(8 / processes, classes / processes, processes)
    total, start = torch.zeros(()), 0
    for size in sizes:
        own = slice(start, start + size)
        part = Predictions(predictions.logits[:, own], predictions.boxes[:, own])
        truth = Targets.from_labels(labels[own], predictions.device, step=step)
        total = total + criterion(part, truth)[0] / processes
        start += size
    torch.testing.assert_close(total, whole, rtol=1e-5, atol=1e-5)
    for mine, other in zip(torch.autograd.grad(total, (predictions.logits, predictions.boxes)), expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_without_step_totals_they_would_depend_on_it() -> None:
    predictions, targets, labels = random_batch(0, (3, 0))
    whole, _ = detr_criterion()(predictions, targets)
    parts = [
        detr_criterion()(
            Predictions(predictions.logits[:, [image]], predictions.boxes[:, [image]]),
            Targets.from_labels(labels[image : image + 1], predictions.device, num_boxes=1.5),
        )[0]
        for image in range(2)
    ]
    assert abs(sum(parts).item() / 2 - whole.item()) > 0.01  # type: ignore[union-attr]
