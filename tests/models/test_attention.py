"""Attention maps and shapes are those of the model, without a change to it."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from detr_ft.data.generated.generate import generate
from detr_ft.data.images import open_image
from detr_ft.inference import Detector
from detr_ft.models.attention import AttentionMaps, attention_maps


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load("embedded:small")


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return open_image(generate("shapes?train=0&validation=0&test=1&seed=77")["test"][0]["image"])


@pytest.fixture(scope="module")
def inside(detector: Detector, image: Image.Image) -> AttentionMaps:
    return attention_maps(detector.model, detector.processor, image)


def test_shapes_are_those_of_the_model(detector: Detector, inside: AttentionMaps) -> None:
    config = detector.model.config
    assert inside.shapes["queries"] == (config.num_queries, config.d_model)
    assert inside.shapes["class logits"] == (config.num_queries, config.num_labels + 1)
    assert inside.shapes["boxes"] == (config.num_queries, 4)
    channels, height, width = inside.shapes["projected to the width of the transformer"]
    assert channels == config.d_model
    assert inside.shapes["tokens of the encoder"] == (height * width, config.d_model)


def test_attention_is_shared_out_among_the_places_of_the_image(detector: Detector, inside: AttentionMaps) -> None:
    places = inside.grid[0] * inside.grid[1]
    config = detector.model.config
    assert inside.encoder.shape == (places, places)
    assert inside.decoder.shape == (config.decoder_layers, config.num_queries, places)
    # Padding is masked, so nothing of the attention is lost with it.
    torch.testing.assert_close(inside.encoder.sum(-1), torch.ones(places), atol=1e-4, rtol=0)
    torch.testing.assert_close(inside.decoder.sum(-1), torch.ones(inside.decoder.shape[:2]), atol=1e-4, rtol=0)


def test_a_sure_query_looks_near_its_box(detector: Detector, image: Image.Image, inside: AttentionMaps) -> None:
    predictions = detector.predictions(image)
    query = int((1 - predictions.logits[-1, 0].softmax(-1)[:, -1]).argmax())
    x, y, *_ = predictions.boxes[-1, 0, query].tolist()
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in inside.grid), indexing="ij")
    weights = inside.decoder[-1, query].reshape(inside.grid)
    centre = (
        float((weights * (columns + 0.5)).sum()) / inside.grid[1],
        float((weights * (rows + 0.5)).sum()) / inside.grid[0],
    )
    assert abs(centre[0] - x) < 0.25
    assert abs(centre[1] - y) < 0.25


def test_looking_changes_nothing(detector: Detector, image: Image.Image) -> None:
    before, kind = detector.predictions(image), detector.model.config._attn_implementation
    attention_maps(detector.model, detector.processor, image)
    assert detector.model.config._attn_implementation == kind
    assert torch.equal(detector.predictions(image).logits, before.logits)


def test_places_and_maps(inside: AttentionMaps) -> None:
    height, width = inside.grid
    assert inside.token_at(0.0, 0.0) == 0
    assert inside.token_at(1.0, 1.0) == height * width - 1
    assert inside.token_at(0.999, 0.0) == width - 1
    shaped = inside.as_map(inside.encoder[0])
    assert shaped.shape == (height, width)
    assert float(shaped.max()) == pytest.approx(1.0)


def test_a_canvas_that_is_padded_shows_the_image_alone(detector: Detector, image: Image.Image) -> None:
    flat = image.resize((image.width, max(8, image.height // 3)))
    maps = attention_maps(detector.model, detector.processor, flat)
    assert maps.grid[0] < maps.grid[1]
    torch.testing.assert_close(maps.encoder.sum(-1), torch.ones(len(maps.encoder)), atol=1e-4, rtol=0)
