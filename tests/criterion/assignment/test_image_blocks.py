from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.random_batches import random_batch

from detr_ft.criterion.assignment.image_blocks import blocks
from detr_ft.criterion.costs import BoxL1Cost, GIoUCost, total_cost

ragged = st.lists(st.integers(0, 5), min_size=1, max_size=6).map(tuple)


@settings(deadline=None, max_examples=50)
@given(counts=ragged, most=st.integers(0, 8))
def test_blocks_are_whole_images_in_order(counts: tuple[int, ...], most: int) -> None:
    _, targets, _ = random_batch(0, counts)
    seen = []
    for place, some in blocks(targets, most):
        assert torch.equal(some.boxes, targets.boxes[place])
        assert torch.equal(some.image, targets.image[place])
        held = {image for image, count in enumerate(some.counts) if count}
        assert held == set(some.image.tolist())
        assert all(some.counts[image] == counts[image] for image in held)
        assert sum(some.counts) <= most or len(held) <= 1
        assert some.num_boxes == targets.num_boxes
        seen += some.labels.tolist()
    assert seen == targets.labels.tolist()


@settings(deadline=None, max_examples=30)
@given(counts=ragged, seed=st.integers(0, 99))
def test_costs_do_not_depend_on_the_blocks(counts: tuple[int, ...], seed: int) -> None:
    predictions, targets, _ = random_batch(seed, counts)
    costs = (BoxL1Cost(), GIoUCost())
    whole = total_cost(costs, predictions, targets)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detr_ft.criterion.costs._ON_A_CPU", 1)
        assert torch.equal(total_cost(costs, predictions, targets), whole)
