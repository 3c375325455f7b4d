from __future__ import annotations

import io

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import DetrConfig, DetrImageProcessor

from detr_ft.data.box_frame import BoxCounts, count_boxes, to_fractions, to_pixels, trainable_boxes
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import detection_objects
from detr_ft.models.families import family_of
from detr_ft.models.predict import detect_by

SIZE = st.tuples(st.integers(20, 400), st.integers(20, 400))


@settings(deadline=None)
@given(sizes=st.lists(SIZE, min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_fractions_and_pixels_are_inverse(sizes: list[tuple[int, int]], seed: int) -> None:
    """One image, and a batch of images with their sizes."""
    corners = torch.rand(len(sizes), 5, 2, 2, generator=torch.Generator().manual_seed(seed)).sort(2).values
    scale = torch.tensor(sizes)
    boxes = (corners * scale[:, None, None]).flatten(2)
    fractions = to_fractions(boxes, scale)
    assert fractions.min() >= 0
    assert fractions.max() <= 1
    assert torch.equal(fractions[0], to_fractions(boxes[0], sizes[0]))
    torch.testing.assert_close(to_pixels(fractions, scale), boxes, rtol=1e-5, atol=1e-3)
    assert torch.equal(to_pixels(fractions, scale)[0], to_pixels(fractions[0], sizes[0]))


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(SIZE, min_size=1, max_size=3), long=st.integers(32, 300), seed=st.integers(0, 1000))
def test_boxes_return_from_training_through_prediction(sizes: list[tuple[int, int]], long: int, seed: int) -> None:
    """A model that outputs the boxes of a training example gives the boxes of the row, in pixels of the original image."""
    processor = DetrImageProcessor(size={"max_height": long, "max_width": long})
    form, random = ImageFormat.of(processor), np.random.default_rng(seed)
    images = [Image.new("RGB", size, (80 * number, 0, 0)) for number, size in enumerate(sizes)]
    truth, learned = [], []
    for image in images:
        corners = random.uniform(0, 1, (5, 2, 2)) * image.size
        low = np.minimum(corners.min(1), np.array(image.size) - 1)
        truth.append(np.concatenate([low, np.maximum(corners.max(1), low + 1)], 1))
        learned.append(trained_on(image, truth[-1], form))

    def run(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        red = pixels[:, 0, 0, 0] * form.std[0] + form.mean[0]
        numbers = (red * 255 / 80).round().int().tolist()
        logits = torch.zeros(len(numbers), 5, 2)
        logits[..., 0] = torch.arange(5, 0, -1)  # detections come in the order of the boxes
        return logits, torch.stack([learned[number] for number in numbers])

    detections = detect_by(run, family_of(DetrConfig()), processor, images, batch_size=2)
    for boxes, output in zip(truth, detections, strict=True):
        np.testing.assert_allclose(output.boxes.numpy(), boxes, rtol=0, atol=0.01)


def trained_on(image: Image.Image, boxes: NDArray[np.float64], form: ImageFormat) -> Tensor:
    """The boxes of a training example of an image, cxcywh in fractions, from xyxy in its pixels."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    bbox = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()
    row = {
        "image": {"path": None, "bytes": buffer.getvalue()},
        "image_id": 1,
        "width": image.width,
        "height": image.height,
        "objects": detection_objects(bbox, [0] * len(bbox)),
    }
    labels = TrainTransform(form)(row, 0, np.random.default_rng(0), lambda position: row)["labels"]
    return labels["boxes"]


def test_every_defect_is_counted_once() -> None:
    inf, nan = float("inf"), float("nan")
    bbox = torch.tensor(
        [
            [10, 10, 20, 20],
            [90, 10, 20, 20],  # sticks out
            [10, 10, 0, 5],
            [10, 10, -5, 5],
            [nan, 10, 5, 5],
            [10, 10, inf, 5],
            [200, 10, 5, 5],
            [30, 30, 10, 10],
        ]
    )
    crowd = torch.tensor([False] * 7 + [True])
    boxes, rows, counts = trainable_boxes(bbox, crowd, 100, 100)
    assert rows.tolist() == [0, 1]
    assert boxes.tolist() == [[10, 10, 30, 30], [90, 10, 100, 30]]
    assert counts == BoxCounts(
        trainable=2, clipped=1, dropped_empty=2, dropped_not_finite=2, dropped_outside=1, crowds=1
    )
    assert "1 clipped" in str(counts)
    assert "2 dropped for NaN" in str(counts)


def test_counts_of_a_split_are_those_of_its_rows() -> None:
    data = generate("shapes?train=30&validation=0")["train"]
    assert count_boxes(data) == BoxCounts(trainable=sum(len(row["objects"]["bbox"]) for row in data))
