"""A step waits for the device once: when the costs travel to the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from random_batches import random_batch
from torch.utils._python_dispatch import TorchDispatchMode

from detr_ft.criterion import (
    CIoUCost,
    CIoULoss,
    CrossEntropyLoss,
    DIoULoss,
    FocalCost,
    FocalLoss,
    GreedyMatcher,
    HungarianMatcher,
    LayerMatcher,
    MatchabilityLoss,
    OneToManyMatcher,
    QualityFocalLoss,
    SetCriterion,
    SmoothL1Loss,
    VarifocalLoss,
    detr_criterion,
)
from detr_ft.structures import Predictions

# What waits for a GPU: a value that Python reads, and results whose size depends on values.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "is_nonzero"}
EVERYTHING = SetCriterion(
    OneToManyMatcher(k=2, costs=[FocalCost(), CIoUCost()]),
    [
        CrossEntropyLoss(class_weights=(1, 2, 3, 4, 5), label_smoothing=0.1),
        FocalLoss(),
        QualityFocalLoss(),
        VarifocalLoss(),
        MatchabilityLoss(),
        SmoothL1Loss(),
        DIoULoss(),
        CIoULoss(),
    ],
)


class Waits(TorchDispatchMode):
    """Counts the operations that would wait for a GPU, the reading of a boolean index among them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in {"index", "index_put", "index_put_"} and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What waits in here: by the dispatcher, and by methods that bring a tensor to the host."""
    waits = Waits()
    for name in ("cpu", "numpy", "tolist", "item"):
        method = getattr(torch.Tensor, name)

        def watched(self: torch.Tensor, *args: Any, _name: str = name, _method: Any = method) -> Any:
            if _name != "numpy":  # the way on from the host
                waits.seen.append(_name)
            return _method(self, *args)

        monkeypatch.setattr(torch.Tensor, name, watched)
    with waits:
        yield waits.seen
    monkeypatch.undo()


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
    HungarianMatcher()(predictions, targets)  # a warning of more targets than queries is not counted
    with counted(monkeypatch) as seen:
        loss, _ = criterion(predictions, targets)
        loss.backward()
    assert seen == ["cpu"]


def test_the_count_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(4.0)
    with counted(monkeypatch) as seen:
        values[values > 1].sum().item()
    assert "nonzero" in seen or "index" in seen
    assert "item" in seen


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("criterion", [detr_criterion(), EVERYTHING], ids=["default", "everything"])
def test_no_other_wait_on_a_gpu(criterion: SetCriterion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any wait but that of the one transfer is an error of the device's."""
    predictions, targets, _ = random_batch(0, (3, 0, 2))
    logits, boxes = (one.detach().cuda().requires_grad_() for one in (predictions.logits, predictions.boxes))
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
