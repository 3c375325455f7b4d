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

from detr_ft.data.augmentation.builtin import NAMED, Augmentation, Strong
from detr_ft.data.box_frame import to_pixels
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate, pad
from detr_ft.data.pipeline.image_format import ImageFormat, with_longest_edge
from detr_ft.data.pipeline.sample import as_bytes, resize_bytes
from detr_ft.data.schema import detection_objects
from detr_ft.errors import InputError

SIZES = [{"max_height": 96, "max_width": 96}, {"shortest_edge": 64, "longest_edge": 100}]
SQUARE = ImageFormat({"max_height": 128, "max_width": 128}, (0.5,) * 3, (0.2,) * 3)


def row_with(image: Image.Image, bbox: list[list[float]], width: int | None = None, **flags: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return {
        "image": {"path": None, "bytes": buffer.getvalue()},
        "image_id": 7,
        "width": width or image.width,
        "height": image.height,
        "objects": detection_objects(bbox, range(len(bbox)), **flags),
    }


def example_of(row: dict[str, Any], format: ImageFormat, augment: Augmentation | None = None, seed: int = 0) -> Any:
    return TrainTransform(format, augment)(row, 0, np.random.default_rng((seed, 0, 0)), lambda place: row)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.tuples(st.integers(20, 300), st.integers(20, 300)), min_size=1, max_size=3),
    size=st.sampled_from(SIZES),
    pad_size=st.sampled_from([None, {"height": 120, "width": 140}]),
    seed=st.integers(0, 100),
)
def test_a_batch_is_what_the_checkpoints_own_processor_makes_of_it(
    sizes: list[tuple[int, int]], size: dict[str, int], pad_size: dict[str, int] | None, seed: int
) -> None:
    """Sizes, padding and mask are equal; pixels to one grey level, and of noise a few to two: resamplers round differently."""
    random = np.random.default_rng(seed)
    images = [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    processor = DetrImageProcessor(size=size, pad_size=pad_size)
    expected = processor(images=images, return_tensors="pt")
    form = ImageFormat.of(processor)
    batch = form.normalize(collate([example_of(row_with(image, []), form) for image in images], form.canvas))
    assert torch.equal(batch["pixel_mask"].long(), expected["pixel_mask"])
    off = (batch["pixel_values"] - expected["pixel_values"]).abs() * torch.tensor(form.std)[:, None, None] * 255
    assert off.max() < 2.01
    assert (off > 1.01).float().mean() < 1e-3
    assert batch["pixel_values"].is_contiguous(memory_format=torch.channels_last)


def test_an_image_of_the_right_size_is_equal_to_what_the_processor_makes_of_it() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 60, 3), dtype=np.uint8)
    processor = DetrImageProcessor(size=SIZES[0])
    form = ImageFormat.of(processor)
    batch = form.normalize(collate([example_of(row_with(Image.fromarray(pixels), []), form)]))
    expected = processor(images=[Image.fromarray(pixels)], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(batch["pixel_values"], expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("settings_of_processor", "words"),
    [
        ({"size": SIZES[0], "pad_size": {"height": 64, "width": 96}}, "pad_size"),
        ({"size": SIZES[0], "do_resize": False}, "does not resize"),
    ],
)
def test_a_processor_that_contradicts_itself_is_refused(settings_of_processor: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ImageFormat.of(DetrImageProcessor(**settings_of_processor))


@pytest.mark.parametrize("pad_size", [None, {"height": 120, "width": 140}])
def test_longest_edge_gives_the_format_without_changing_the_processor(pad_size: dict[str, int] | None) -> None:
    processor = DetrImageProcessor(size=SIZES[1], pad_size=pad_size)
    written = processor.to_json_string()
    form = ImageFormat.of(with_longest_edge(processor, 64))
    assert form.size == {"max_height": 64, "max_width": 64}
    assert form.canvas == (pad_size and (64, 64))
    assert with_longest_edge(processor, None) is processor
    assert processor.to_json_string() == written
    assert ImageFormat.of(processor).size == SIZES[1]
    square = {"height": 64, "width": 64} if pad_size else None
    same = DetrImageProcessor(size={"max_height": 64, "max_width": 64}, pad_size=square)
    assert with_longest_edge(processor, 64).to_dict() == same.to_dict()


def test_a_padded_part_equals_that_of_the_whole_batch() -> None:
    examples = [
        example_of(row_with(Image.effect_noise(size, 80).convert("RGB"), []), SQUARE) for size in ((60, 30), (30, 80))
    ]
    whole, part = collate(examples), collate(examples[:1])
    padded = pad(part, *whole["pixel_values"].shape[2:])
    assert torch.equal(padded["pixel_values"], whole["pixel_values"][:1])
    assert torch.equal(padded["pixel_mask"], whole["pixel_mask"][:1])
    assert padded["pixel_values"].is_contiguous(memory_format=torch.channels_last)


@settings(deadline=None, max_examples=60)
@given(
    width=st.integers(20, 400),
    height=st.integers(20, 400),
    long=st.integers(32, 300),
    canvas=st.booleans(),
    beside=st.tuples(st.integers(20, 200), st.integers(20, 200)),
    seed=st.integers(0, 1000),
)
def test_a_box_comes_back_within_half_a_pixel(
    width: int, height: int, long: int, canvas: bool, beside: tuple[int, int], seed: int
) -> None:
    """For any size, shape (to 20 : 1), batch and padding, by `post_process_object_detection` of transformers."""
    corners = np.random.default_rng(seed).uniform(0, 1, (5, 2, 2)) * [width, height]
    low, high = corners.min(1), corners.max(1) + 0.1
    bbox = np.concatenate([low, np.minimum(high, [width, height]) - low], 1).tolist()
    processor = DetrImageProcessor(
        size={"max_height": long, "max_width": long},
        pad_size={"height": long + 7, "width": long + 90} if canvas else None,
    )
    form = ImageFormat.of(processor)
    rows = [row_with(Image.new("RGB", size), boxes) for size, boxes in (((width, height), bbox), (beside, []))]
    batch = form.normalize(collate([example_of(row, form) for row in rows], form.canvas))
    predicted = torch.zeros(2, 5, 4)
    predicted[0] = batch["labels"][0]["boxes"]
    outputs = type("Outputs", (), {"logits": torch.randn(2, 5, 3), "pred_boxes": predicted})
    sizes = [(height, width), beside[::-1]]
    back = processor.post_process_object_detection(outputs, threshold=-1.0, target_sizes=sizes)[0]["boxes"]
    expected = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in bbox])
    torch.testing.assert_close(back, expected, rtol=0, atol=0.05)


@settings(deadline=None, max_examples=80)
@given(
    width=st.integers(60, 400),
    height=st.integers(60, 400),
    name=st.sampled_from(["none", "light", "detr"]),
    seed=st.integers(0, 1000),
)
def test_boxes_follow_their_pixels(width: int, height: int, name: str, seed: int) -> None:
    """A white rectangle on black: wherever it goes, its box comes out around it, half a pixel of the original at most away."""
    box = [0.4 * width, 0.45 * height, 0.2 * width, 0.15 * height]
    left, top, right, bottom = (round(v) for v in (box[0], box[1], box[0] + box[2], box[1] + box[3]))
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), (left, top, right, bottom))
    row = row_with(image, [[left, top, right - left, bottom - top]])
    form = ImageFormat({"max_height": 900, "max_width": 900}, (0.0,) * 3, (1.0,) * 3)  # larger than the image
    example = example_of(row, form, NAMED[name], seed)
    pixels, boxes = example["pixel_values"], example["labels"]["boxes"]
    if not len(boxes):
        assert name == "detr"  # the window missed it
        return
    assert example["labels"]["class_labels"].tolist() == [0]
    _, h, w = pixels.shape
    grey = pixels.float().mean(0)
    inside = grey > (grey.min() + grey.max()) / 2
    rows, columns = (np.flatnonzero(inside.any(axis).numpy()) for axis in (1, 0))
    seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)
    half_a_pixel = 0.5 * max(w / width, h / height) * 2  # a window of half the image shows it twice as large
    torch.testing.assert_close(to_pixels(boxes, (w, h))[0], seen, rtol=0, atol=half_a_pixel + 0.5)


def test_crowds_move_along_and_are_not_trained_on() -> None:
    row = row_with(Image.new("RGB", (100, 50)), [[0, 0, 50, 25], [50, 25, 50, 25]], iscrowd=[True, False])
    labels = example_of(row, SQUARE)["labels"]
    assert labels["class_labels"].tolist() == [1]
    assert labels["boxes"].tolist() == [[0.75, 0.75, 0.5, 0.5]]


@pytest.mark.parametrize("name", ["light", "detr", "strong"])
def test_an_example_depends_on_seed_epoch_and_index_alone(name: str) -> None:
    split = generate("shapes?train=6&validation=0")["train"]
    first, second = (TrainDataset(split, TrainTransform(SQUARE, NAMED[name]), seed=1) for _ in range(2))
    first.epoch = second.epoch = 3
    forwards = [first[index] for index in range(6)]
    backwards = [second[index] for index in reversed(range(6))][::-1]
    assert all(_same(a, b) for a, b in zip(forwards, backwards, strict=True))
    second.epoch = 4
    assert not all(_same(a, second[index]) for index, a in enumerate(forwards))


def test_workers_change_nothing() -> None:
    split = generate("shapes?train=6&validation=0")["train"]
    examples = TrainDataset(split, TrainTransform(SQUARE, Strong()), seed=1)
    loaders = [torch.utils.data.DataLoader(examples, 2, num_workers=n, collate_fn=collate) for n in (0, 2)]
    for alone, shared in zip(*loaders, strict=True):
        assert torch.equal(alone["pixel_values"], shared["pixel_values"])
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(alone["labels"], shared["labels"], strict=True))


def _same(a: Any, b: Any) -> bool:
    return torch.equal(a["pixel_values"], b["pixel_values"]) and torch.equal(a["labels"]["boxes"], b["labels"]["boxes"])


def test_mixing_ends_with_its_epoch() -> None:
    """White images with a black one in their middle: a mosaic shows more than two colours' edges, so count objects."""
    split = generate("shapes?train=8&validation=0")["train"]
    mixed = Strong(mosaics=1.0, mix_ups=0.0, pastes=0.0, min_visible=0.0)
    examples = TrainDataset(split, TrainTransform(SQUARE, mixed, mixing_ends=2), seed=0)

    def objects(epoch: int) -> int:
        examples.epoch = epoch
        return sum(len(examples[index]["labels"]["boxes"]) for index in range(8))

    alone = sum(len(one["category"]) for one in split["objects"])
    assert objects(1) > alone
    assert objects(2) <= alone


def test_a_row_that_states_another_size_than_its_image_is_refused() -> None:
    row = row_with(Image.new("RGB", (100, 50)), [[100, 50, 50, 25]], width=200) | {"height": 100}
    with pytest.raises(InputError, match=r"states 200x100, .* is 100x50\. .*with_true_sizes"):
        example_of(row, SQUARE)


def test_a_processor_that_squashes_is_refused() -> None:
    with pytest.raises(InputError, match="longest_edge"):
        ImageFormat.of(DetrImageProcessor(size={"height": 64, "width": 64}))


def test_a_photograph_is_resized_within_one_grey_level_of_pillow() -> None:
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize((640, 480), 3)
    grain = random.normal(0, 6, (480, 640, 3))
    image = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
    for size in ((1066, 800), (333, 250), (128, 96), (640, 480)):
        ours = resize_bytes(as_bytes(image), *size).permute(1, 2, 0).numpy().astype(int)
        assert np.abs(ours - np.asarray(image.resize(size, Image.Resampling.BILINEAR))).max() <= 1
