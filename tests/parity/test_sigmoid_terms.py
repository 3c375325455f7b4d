"""Terms for sigmoid scores equal those of transformers, value and gradient, for the same pairs."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch
from torch import Tensor
from transformers.loss.loss_for_object_detection import sigmoid_focal_loss
from transformers.loss.loss_lw_detr import LwDetrImageLoss
from transformers.loss.loss_rt_detr import RTDetrHungarianMatcher, RTDetrLoss

from detr_ft.boxes import iou
from detr_ft.criterion import (
    BoxL1Cost,
    GIoUCost,
    HungarianMatcher,
    IoUAwareLoss,
    SigmoidFocalCost,
    SigmoidFocalLoss,
    SigmoidMatchabilityLoss,
    SigmoidQualityFocalLoss,
    SigmoidVarifocalLoss,
)
from detr_ft.structures import Matches, Predictions

CLASSES = 5
COSTS = [SigmoidFocalCost(weight=2), BoxL1Cost(weight=5), GIoUCost(weight=2)]
CONFIG: Any = SimpleNamespace(
    num_labels=CLASSES, eos_coefficient=0.1, focal_loss_alpha=0.75, focal_loss_gamma=2.0,
    weight_loss_vfl=1.0, weight_loss_bbox=5.0, weight_loss_giou=2.0,
    matcher_class_cost=2.0, matcher_bbox_cost=5.0, matcher_giou_cost=2.0,
    use_focal_loss=True, matcher_alpha=0.25, matcher_gamma=2.0,
)  # fmt: skip
Batch = dict[str, Tensor]
Stock = Callable[[Batch, list[dict[str, Tensor]], Any, float], Tensor]


def one_hot(outputs: Batch, labels: list[dict[str, Tensor]], indices: Any) -> tuple[Tensor, Tensor]:
    """The IoU of each pair at its class, and 1 there: twice `[B, Q, K]`."""
    quality, target = torch.zeros_like(outputs["logits"]), torch.zeros_like(outputs["logits"])
    for image, (queries, targets) in enumerate(indices):
        own = labels[image]
        overlap = iou(outputs["pred_boxes"][image, queries], own["boxes"][targets]).detach()
        quality[image, queries, own["class_labels"][targets]] = overlap
        target[image, queries, own["class_labels"][targets]] = 1.0
    return quality, target


def focal(outputs: Batch, labels: list[dict[str, Tensor]], indices: Any, boxes: float) -> Tensor:
    _, target = one_hot(outputs, labels, indices)
    logits = outputs["logits"]
    return sigmoid_focal_loss(logits, target, boxes, 0.25, 2) * logits.shape[1]


def varifocal(outputs: Batch, labels: list[dict[str, Tensor]], indices: Any, boxes: float) -> Tensor:
    value: Tensor = RTDetrLoss(CONFIG).loss_labels_vfl(outputs, labels, indices, boxes)["loss_vfl"]
    return value


def matchability(outputs: Batch, labels: list[dict[str, Tensor]], indices: Any, boxes: float) -> Tensor:
    deimv2 = pytest.importorskip("transformers.loss.loss_deimv2")
    own = SimpleNamespace(num_classes=CLASSES, gamma=1.5, mal_alpha=None)
    own._get_source_permutation_idx = lambda pairs: RTDetrLoss._get_source_permutation_idx(own, pairs)  # type: ignore[arg-type]
    value: Tensor = deimv2.Deimv2Loss.loss_labels_mal(own, outputs, labels, indices, boxes)["loss_mal"]
    return value


def iou_aware(outputs: Batch, labels: list[dict[str, Tensor]], indices: Any, boxes: float) -> Tensor:
    own = LwDetrImageLoss(None, CLASSES, 0.25, ["labels"], 1)
    value: Tensor = own.loss_labels(outputs, labels, indices, boxes)["loss_ce"]
    return value


def quality_focal(outputs: Batch, labels: list[dict[str, Tensor]], indices: Any, boxes: float) -> Tensor:
    """By the formula of the paper, since transformers has no such loss."""
    quality, _ = one_hot(outputs, labels, indices)
    logits = outputs["logits"]
    cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return ((quality - logits.sigmoid()).abs() ** 2 * cross_entropy).sum() / boxes


TERMS: list[tuple[Any, Stock]] = [
    (SigmoidFocalLoss(), focal),
    (SigmoidVarifocalLoss(), varifocal),
    (SigmoidMatchabilityLoss(), matchability),
    (IoUAwareLoss(), iou_aware),
    (SigmoidQualityFocalLoss(), quality_focal),
]


def sigmoid_batch(seed: int, counts: tuple[int, ...], layers: int = 2) -> tuple[Predictions, Any, Any]:
    predictions, targets, labels = random_batch(seed, counts, layers, classes=CLASSES)
    logits = predictions.logits.detach()[..., :CLASSES].clone().requires_grad_()
    return Predictions(logits, predictions.boxes, "sigmoid"), targets, labels


def pairs_of(matches: Matches, layer: int, images: int, counts: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    """The pairs of a layer as transformers has them: query and target of each image."""
    starts = torch.tensor([0, *counts]).cumsum(0)
    own = matches.layer == layer
    return [
        (matches.query[own & (matches.image == image)], matches.target[own & (matches.image == image)] - starts[image])
        for image in range(images)
    ]


@pytest.mark.parametrize(("loss", "stock"), TERMS, ids=[type(loss).__name__ for loss, _ in TERMS])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 9), min_size=1, max_size=3).filter(any).map(tuple))
def test_a_loss_equals_that_of_transformers(loss: Any, stock: Stock, seed: int, counts: tuple[int, ...]) -> None:
    predictions, targets, labels = sigmoid_batch(seed, counts)
    matches = HungarianMatcher(COSTS)(predictions, targets)
    ours = loss(predictions, targets, matches)
    assert ours.shape == (2,)
    theirs = [
        stock(
            {"logits": predictions.logits[layer], "pred_boxes": predictions.boxes[layer]},
            labels, pairs_of(matches, layer, len(counts), counts), float(sum(counts)),
        )
        for layer in range(2)
    ]  # fmt: skip
    torch.testing.assert_close(ours, torch.stack(theirs), rtol=1e-5, atol=1e-5)
    (mine,) = torch.autograd.grad(ours.sum(), predictions.logits, retain_graph=True)
    (expected,) = torch.autograd.grad(sum(theirs), predictions.logits)
    torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-6)
    (of_boxes,) = torch.autograd.grad(ours.sum(), predictions.boxes, allow_unused=True)
    assert of_boxes is None  # the quality has no gradient


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any).map(tuple))
def test_the_matching_equals_that_of_transformers(seed: int, counts: tuple[int, ...]) -> None:
    predictions, targets, labels = sigmoid_batch(seed, counts, layers=1)
    outputs = {"logits": predictions.logits[0], "pred_boxes": predictions.boxes[0]}
    ours = pairs_of(HungarianMatcher(COSTS)(predictions, targets), 0, len(counts), counts)
    for (query, target), (stock_query, stock_target) in zip(
        ours, RTDetrHungarianMatcher(CONFIG)(outputs, labels), strict=True
    ):
        pairs = sorted(zip(query.tolist(), target.tolist(), strict=True))
        assert pairs == sorted(zip(stock_query.tolist(), stock_target.tolist(), strict=True))
