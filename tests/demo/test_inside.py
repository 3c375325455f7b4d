"""Attention of positions and queries, and the query of a clicked box."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import load_examples
from inside_tab import (
    View,
    compute_view,
    mean_attention,
    overlay,
    position_attention,
    query_at,
    query_attention,
    specialization_grid,
)

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.inference import Detector


@pytest.fixture(scope="module")
def views() -> list[View]:
    detector = Detector.load("embedded:small")
    return [
        compute_view(detector, example.image) for example in load_examples("embedded:small", detector.names, None)[:3]
    ]


def test_a_position_shows_its_own_token(views: list[View]) -> None:
    view = views[0]
    height, width = view.attention.grid
    for x, y in ((0.01, 0.01), (0.99, 0.01), (0.5, 0.7)):
        token = int(y * height) * width + int(x * width)
        expected = overlay(view, view.attention.encoder[token])
        assert np.array_equal(np.asarray(position_attention(view, x, y)[0]), np.asarray(expected))
    first, other = (np.asarray(position_attention(view, *at)[0]) for at in ((0.01, 0.01), (0.99, 0.99)))
    assert not np.array_equal(first, other)


def test_a_query_is_shown_at_its_layer(views: list[View]) -> None:
    view = views[0]
    shown, status = query_attention(view, 3, 2)
    assert np.array_equal(np.asarray(shown), np.asarray(overlay(view, view.attention.decoder[1, 3])))
    assert status.startswith("Query 3 at decoder layer 2")


def test_a_click_selects_the_smallest_box_around_it(views: list[View]) -> None:
    for view in views:
        boxes = cxcywh_to_xyxy(view.predictions.boxes[-1, 0])
        for query in view.is_object.nonzero()[:, 0].tolist():
            x, y = ((boxes[query, :2] + boxes[query, 2:]) / 2).tolist()
            selected = query_at(view, x, y)
            assert selected is not None
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
            assert areas[selected] <= areas[query]
            assert bool(view.is_object[selected])
        assert query_at(view, 2.0, 2.0) is None


def test_mean_attention_is_the_mean_over_images(views: list[View]) -> None:
    mean = mean_attention(views, 5)
    assert mean.shape == (12, 12)
    assert float(mean.max()) == pytest.approx(1)
    torch.testing.assert_close(mean_attention(views[:1] * 3, 5), mean_attention(views[:1], 5))
    assert not torch.allclose(mean, mean_attention(views[:1], 5), atol=1e-3)
    assert "over 3 images" in specialization_grid(views)
