"""The default criterion equals the stock loss of transformers in every term, the sum, and every gradient."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import pairs_as_lists, random_batch
from transformers import DetrConfig
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss
from transformers.loss.loss_for_object_detection import HungarianMatcher as StockMatcher

from detr_ft.criterion import HungarianMatcher, detr_criterion
from detr_ft.structures import Predictions

CONFIG = DetrConfig(auxiliary_loss=True, num_labels=5, backbone_config={"model_type": "resnet"})


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any).map(tuple),
    layers=st.integers(1, 4),
)
def test_equals_the_stock_loss_in_every_term_and_gradient(seed: int, counts: tuple[int, ...], layers: int) -> None:
    predictions, targets, labels = random_batch(seed, counts, layers)
    logits, boxes = predictions.logits, predictions.boxes
    stock, stock_terms, _ = ForObjectDetectionLoss(logits[-1], labels, logits.device, boxes[-1], CONFIG, logits, boxes)
    ours, our_terms = detr_criterion()(predictions, targets)
    assert our_terms.keys() == stock_terms.keys()
    for name, value in stock_terms.items():
        torch.testing.assert_close(our_terms[name].float(), value.float(), rtol=1e-5, atol=1e-5, msg=name)
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad(stock, (logits, boxes))
    for mine, theirs in zip(torch.autograd.grad(ours, (logits, boxes)), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("hundred", range(10))
def test_a_thousand_random_cases(hundred: int) -> None:
    """The same assignment, and the loss to 1e-5; sizes, sharpness of scores and number of objects vary."""
    matcher = StockMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    for seed in range(100 * hundred, 100 * hundred + 100):
        generator = torch.Generator().manual_seed(seed)
        queries, images = (int(torch.randint(1, most, (), generator=generator)) for most in (40, 5))
        counts = tuple(torch.randint(0, queries + 1, (images,), generator=generator).clamp(max=12).tolist())
        counts = counts if any(counts) else (1, *counts[1:])
        predictions, targets, labels = random_batch(seed, counts, layers=2, queries=queries)
        logits, boxes = predictions.logits, predictions.boxes
        stock, _, _ = ForObjectDetectionLoss(logits[-1], labels, logits.device, boxes[-1], CONFIG, logits, boxes)
        torch.testing.assert_close(detr_criterion()(predictions, targets)[0], stock, rtol=1e-5, atol=1e-5)
        theirs = matcher({"logits": logits[-1], "pred_boxes": boxes[-1]}, labels)
        starts = [sum(counts[:image]) for image in range(images)]
        expected = {
            (image, int(query), starts[image] + int(target))
            for image, pairs in enumerate(theirs)
            for query, target in zip(*pairs, strict=True)
        }
        mine = pairs_as_lists(HungarianMatcher()(predictions, targets))
        assert {pair[1:] for pair in mine if pair[0] == 1} == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_equals_the_stock_loss_of_the_same_values_in_fp32(dtype: torch.dtype) -> None:
    predictions, targets, labels = random_batch(1, (3, 0, 2))
    logits, boxes = (values.detach().to(dtype) for values in (predictions.logits, predictions.boxes))
    full = logits.float(), boxes.float()
    stock, _, _ = ForObjectDetectionLoss(full[0][-1], labels, logits.device, full[1][-1], CONFIG, *full)
    torch.testing.assert_close(detr_criterion()(Predictions(logits, boxes), targets)[0], stock, rtol=1e-5, atol=1e-5)


def test_is_finite_where_the_stock_loss_is_not() -> None:
    """A predicted box of no area on a target of no area."""
    predictions, targets, labels = random_batch(0, (1,), layers=1)
    with torch.no_grad():
        predictions.boxes[..., 2:] = 0
        targets.boxes[:] = labels[0]["boxes"][:] = torch.tensor([0.5, 0.5, 0.0, 0.0])
        predictions.boxes[:] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    logits, boxes = predictions.logits, predictions.boxes
    _, stock_terms, _ = ForObjectDetectionLoss(logits[-1], labels, logits.device, boxes[-1], CONFIG, logits, boxes)
    assert stock_terms["loss_giou"].isnan()
    loss, terms = detr_criterion()(predictions, targets)
    assert terms["loss_giou"].item() == pytest.approx(1.0)
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, (logits, boxes)))
