"""A step synchronizes the device once, when the costs travel to the host."""

from __future__ import annotations

import pytest
import torch
from support.random_batches import random_batch
from support.synchronizations import count_synchronizations

from detr_ft.criterion import (
    CIoUCost,
    CIoULoss,
    CrossEntropyLoss,
    DIoULoss,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    OneToManyMatcher,
    SetCriterion,
    SmoothL1Loss,
    SoftmaxFocalCost,
    SoftmaxFocalLoss,
    SoftmaxMatchabilityLoss,
    SoftmaxQualityFocalLoss,
    SoftmaxVarifocalLoss,
    detr_criterion,
)
from detr_ft.structures import Predictions

EVERYTHING = SetCriterion(
    OneToManyMatcher(k=2, costs=[SoftmaxFocalCost(), CIoUCost()]),
    [
        CrossEntropyLoss(class_weights=(1, 2, 3, 4, 5), label_smoothing=0.1),
        SoftmaxFocalLoss(),
        SoftmaxQualityFocalLoss(),
        SoftmaxVarifocalLoss(),
        SoftmaxMatchabilityLoss(),
        SmoothL1Loss(),
        DIoULoss(),
        CIoULoss(),
    ],
)


@pytest.mark.parametrize("counts", [(3, 0, 2), (0, 0), (12, 1)])
@pytest.mark.parametrize(
    "criterion",
    [
        detr_criterion(),
        EVERYTHING,
        SetCriterion(GreedyMatcher(), detr_criterion().losses),
        SetCriterion(LayerMatcher(HungarianMatcher(), OneToManyMatcher(k=2)), detr_criterion().losses),
    ],
    ids=["default", "everything", "greedy", "by layer"],
)
def test_one_transfer_a_step(criterion: SetCriterion, counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    predictions, targets, _ = random_batch(0, counts)
    HungarianMatcher()(predictions, targets)  # the warning of more targets than queries is not counted
    with count_synchronizations(monkeypatch) as recorded:
        loss, _ = criterion(predictions, targets)
        loss.backward()
    assert recorded == ["cpu"]


def test_the_count_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(4.0)
    with count_synchronizations(monkeypatch) as recorded:
        values[values > 1].sum().item()
    assert "nonzero" in recorded or "index" in recorded
    assert "item" in recorded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("criterion", [detr_criterion(), EVERYTHING], ids=["default", "everything"])
def test_no_other_synchronization_of_a_gpu(criterion: SetCriterion, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device raises for any synchronization except that of the transfer."""
    predictions, targets, _ = random_batch(0, (3, 0, 2))
    logits, boxes = (values.detach().cuda().requires_grad_() for values in (predictions.logits, predictions.boxes))
    moved = targets.to(torch.device("cuda"))
    to_host, transfers = torch.Tensor.cpu, []

    def transfer(values: torch.Tensor) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("default")
        transfers.append(values.numel())
        host = to_host(values)
        torch.cuda.set_sync_debug_mode("error")
        return host

    criterion(Predictions(logits, boxes), moved)[0].backward()
    torch.cuda.synchronize()
    monkeypatch.setattr(torch.Tensor, "cpu", transfer)
    torch.cuda.set_sync_debug_mode("error")
    try:
        criterion(Predictions(logits, boxes), moved)[0].backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(transfers) == 1
