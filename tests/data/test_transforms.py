from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import DetrImageProcessor

from detr_ft.data.collate import TrainExamples, collate
from detr_ft.data.frame import to_pixels
from detr_ft.data.generated import generate
from detr_ft.data.schema import detection_objects
from detr_ft.data.transforms import Augmentation, ImageFormat, TrainTransform, to_pixel_values
from detr_ft.errors import UserError

STEPS = (0,)
SIZES = [{"max_height": 96, "max_width": 96}, {"shortest_edge": 64, "longest_edge": 100}]


def row_with(image: Image.Image, bbox: list[list[float]], width: int | None = None) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {
        "image": {"path": None, "bytes": buffer.getvalue()},
        "image_id": 7,
        "width": width or image.width,
        "height": image.height,
        "objects": detection_objects(bbox, range(len(bbox))),
    }


@settings(deadline=None, max_examples=30)
@given(width=st.integers(20, 300), height=st.integers(20, 300), size=st.sampled_from(SIZES), seed=st.integers(0, 100))
def test_pixels_are_those_of_the_checkpoints_own_processor(
    width: int, height: int, size: dict[str, int], seed: int
) -> None:
    processor = DetrImageProcessor(size=size)
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    expected = processor(images=[image], return_tensors="pt", do_pad=False)["pixel_values"][0]
    ours = to_pixel_values(image, ImageFormat.of(processor))
    assert ours.shape == expected.shape
    grey_level = 1 / 255 / min(processor.image_std)
    torch.testing.assert_close(ours, expected, rtol=0, atol=grey_level + 1e-5)


@pytest.mark.parametrize("pad_size", [None, {"height": 120, "width": 140}])
def test_a_batch_is_padded_as_the_processor_pads_it(pad_size: dict[str, int] | None) -> None:
    processor = DetrImageProcessor(size=SIZES[0], pad_size=pad_size)
    images = [Image.new("RGB", size, "red") for size in ((90, 50), (40, 80))]
    expected = processor(images=images, return_tensors="pt")
    transform = TrainTransform(ImageFormat.of(processor))
    batch = collate([transform(row_with(image, []), STEPS) for image in images], transform.format.canvas)
    assert torch.equal(batch["pixel_mask"], expected["pixel_mask"])
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("settings_of_processor", "words"),
    [
        ({"size": SIZES[0], "pad_size": {"height": 64, "width": 96}}, "pad_size"),
        ({"size": SIZES[0], "do_resize": False}, "does not resize"),
    ],
)
def test_a_processor_that_contradicts_itself_is_refused(settings_of_processor: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        ImageFormat.of(DetrImageProcessor(**settings_of_processor))


@settings(deadline=None, max_examples=25)
@given(
    width=st.integers(40, 400),
    height=st.integers(40, 400),
    augment=st.sampled_from(["none", "light", "detr"]),
    seed=st.integers(0, 1000),
)
def test_boxes_follow_their_pixels(width: int, height: int, augment: Augmentation, seed: int) -> None:
    """A white rectangle on black: wherever it goes, its box comes out around it, in fractions of the un-padded image."""
    box = [0.35 * width, 0.4 * height, 0.3 * width, 0.25 * height]
    left, top, right, bottom = (round(v) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), (left, top, right, bottom))
    row = row_with(image, [[left, top, right - left, bottom - top]])
    transform = TrainTransform(ImageFormat({"max_height": 200, "max_width": 200}, (0.0,) * 3, (1.0,) * 3), augment)
    example = transform(row, (seed,))
    pixels, boxes = example["pixel_values"], example["labels"]["boxes"]
    assert example["labels"]["class_labels"].tolist() == [0]
    _, h, w = pixels.shape
    rows, columns = (np.flatnonzero((pixels.mean(0) > 0.25).any(axis).numpy()) for axis in (1, 0))
    seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
    one_pixel = max(200 / min(width, height), 1) + 0.6
    torch.testing.assert_close(to_pixels(boxes, w, h)[0], seen, rtol=0, atol=one_pixel)


def test_augmentation_depends_on_seed_epoch_and_index_alone() -> None:
    split = generate("shapes?train=6&validation=0")["train"]
    transform = TrainTransform(ImageFormat({"max_height": 128, "max_width": 128}, (0.5,) * 3, (0.2,) * 3), "light")
    first, second = TrainExamples(split, transform, seed=1), TrainExamples(split, transform, seed=1)
    first.epoch = second.epoch = 3
    forwards = [first[index]["pixel_values"] for index in range(6)]
    backwards = [second[index]["pixel_values"] for index in reversed(range(6))]
    assert all(torch.equal(a, b) for a, b in zip(forwards, reversed(backwards), strict=True))
    second.epoch = 4
    assert not all(
        a.shape == b.shape and torch.equal(a, b)
        for a, b in zip(forwards, (second[index]["pixel_values"] for index in range(6)), strict=True)
    )


def test_boxes_of_a_rescaled_image_are_rescaled() -> None:
    """The stated size is twice the stored one: the boxes were drawn on the original."""
    row = row_with(Image.new("RGB", (100, 50)), [[100, 50, 50, 25]], width=200) | {"height": 100}
    transform = TrainTransform(ImageFormat({"max_height": 100, "max_width": 100}, (0.5,) * 3, (0.2,) * 3))
    assert transform(row, STEPS)["labels"]["boxes"].tolist() == [[0.625, 0.625, 0.25, 0.25]]


def test_a_processor_that_squashes_is_refused() -> None:
    with pytest.raises(UserError, match="longest_edge"):
        ImageFormat.of(DetrImageProcessor(size={"height": 64, "width": 64}))
