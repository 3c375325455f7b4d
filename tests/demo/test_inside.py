"""Where a place and a query look, and which query a click on a box asks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from examples import examples_of
from inside_tab import View, attended, by_place, by_query, look, overlay, query_at, specialities

from detr_ft.boxes import cxcywh_to_xyxy
from detr_ft.inference import Detector


@pytest.fixture(scope="module")
def views() -> list[View]:
    detector = Detector.load("embedded:small")
    return [look(detector, one.picture) for one in examples_of("embedded:small", detector.names, None)[:3]]


def test_a_place_asks_its_own_token(views: list[View]) -> None:
    one = views[0]
    height, width = one.inside.grid
    for across, down in ((0.01, 0.01), (0.99, 0.01), (0.5, 0.7)):
        token = int(down * height) * width + int(across * width)
        expected = overlay(one, one.inside.encoder[token])
        assert np.array_equal(np.asarray(by_place(one, across, down)[0]), np.asarray(expected))
    first, other = (np.asarray(by_place(one, *at)[0]) for at in ((0.01, 0.01), (0.99, 0.99)))
    assert not np.array_equal(first, other)


def test_a_query_is_shown_at_its_layer(views: list[View]) -> None:
    one = views[0]
    shown, words = by_query(one, 3, 2)
    assert np.array_equal(np.asarray(shown), np.asarray(overlay(one, one.inside.decoder[1, 3])))
    assert words.startswith("Query 3 at decoder layer 2")


def test_a_click_finds_the_smallest_box_around_it(views: list[View]) -> None:
    for one in views:
        boxes = cxcywh_to_xyxy(one.said.boxes[-1, 0])
        for query in one.sure.nonzero()[:, 0].tolist():
            across, down = ((boxes[query, :2] + boxes[query, 2:]) / 2).tolist()
            found = query_at(one, across, down)
            assert found is not None
            areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
            assert areas[found] <= areas[query]
            assert bool(one.sure[found])
        assert query_at(one, 2.0, 2.0) is None


def test_what_a_query_attends_to_is_the_mean_over_the_images(views: list[View]) -> None:
    told = attended(views, 5)
    assert told.shape == (12, 12)
    assert float(told.max()) == pytest.approx(1)
    torch.testing.assert_close(attended(views[:1] * 3, 5), attended(views[:1], 5))
    assert not torch.allclose(told, attended(views[:1], 5), atol=1e-3)
    assert "in 3 images" in specialities(views)
