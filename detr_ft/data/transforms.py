"""From a row of the schema to a training example: open, augment, resize, normalise, box frame."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from PIL import Image, ImageEnhance
from torch import Tensor
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import get_image_size_for_max_height_width

from detr_ft.data.frame import as_tensors, to_fractions, trainable_boxes
from detr_ft.data.images import open_image
from detr_ft.errors import UserError

Augmentation = Literal["none", "light", "detr"]

_JITTER = 0.25  # brightness, contrast and saturation, in fractions
_LEAST_CROP = 0.6  # of each side
_LEAST_LEFT = 0.4  # of a box's area, for it to count as still there after a crop


@dataclass(frozen=True)
class ImageFormat:
    """How a checkpoint's own processor makes pixels: `size` as the processor writes it, mean and deviation by channel.

    `canvas` is the height and width that every image is padded to; None: to the largest of its batch.
    """

    size: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    canvas: tuple[int, int] | None = None

    @classmethod
    def of(cls, processor: Any) -> ImageFormat:
        """The format of an image processor; raises UserError for a resizing that is not DETR's."""
        size = {key: value for key, value in dict(processor.size).items() if value is not None}
        if set(size) not in ({"max_height", "max_width"}, {"shortest_edge", "longest_edge"}, {"shortest_edge"}):
            raise UserError(
                f"the checkpoint's image processor resizes to {size}, which does not keep the shape of an image; "
                "give data.longest_edge in the recipe"
            )
        if not processor.do_resize:
            raise UserError("the checkpoint's image processor does not resize (do_resize is false), and training would")
        return cls(size, tuple(processor.image_mean), tuple(processor.image_std), canvas_of(processor))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing, as the processor rounds them."""
        if "max_height" in self.size:
            size = get_image_size_for_max_height_width((height, width), self.size["max_height"], self.size["max_width"])
        else:
            size = get_size_with_aspect_ratio(
                (height, width), self.size["shortest_edge"], self.size.get("longest_edge")
            )
        if min(size) < 1:
            raise UserError(
                f"an image of {width}x{height} pixels is too thin for {dict(self.size)}: a side would vanish"
            )
        return int(size[1]), int(size[0])


def canvas_of(processor: Any) -> tuple[int, int] | None:
    """The height and width that a processor pads every image to, or None where it pads to the largest of a batch.

    Raises UserError for a canvas that is smaller than the images.
    """
    if not (processor.do_pad and processor.pad_size):
        return None
    pad, size = dict(processor.pad_size), dict(processor.size)
    canvas = int(pad["height"]), int(pad["width"])
    longest = max(size.get(key) or 0 for key in ("longest_edge", "max_height", "max_width"))
    if min(canvas) < longest:
        raise UserError(
            f"the checkpoint's image processor resizes to {longest} pixels and pads to {canvas[0]} x {canvas[1]}, "
            "which is less; mend pad_size in its preprocessor_config.json, or give data.longest_edge"
        )
    return canvas


@dataclass(frozen=True)
class TrainTransform:
    """`(row, seed) -> {pixel_values [3, H, W], labels}`: an example, the same for the same row and seed.

    `labels` is what transformers takes: `class_labels [T]` and `boxes [T, 4]`, cxcywh in fractions, and `image_id [1]`.
    `light` flips, crops and shifts colours gently; `detr` flips, scales and crops as the paper does.
    """

    format: ImageFormat
    augment: Augmentation = "none"

    def __call__(self, row: dict[str, Any], seed: tuple[int, ...]) -> dict[str, Any]:
        image = open_image(row["image"])
        bbox, iscrowd = as_tensors(row["objects"])
        boxes, kept, _ = trainable_boxes(*_as_stated(bbox, iscrowd, row, image), *image.size)
        labels = torch.tensor(row["objects"]["category"], dtype=torch.long)[kept]
        if self.augment != "none":
            random = np.random.default_rng(seed)
            image, boxes, labels = _augment(random, image, boxes, labels, self.augment)
        fractions = to_fractions(boxes, *image.size)
        return {
            "pixel_values": to_pixel_values(image, self.format),
            "labels": {
                "class_labels": labels,
                "boxes": fractions,
                "image_id": torch.tensor([row["image_id"]]),
            },
        }


def to_pixel_values(image: Image.Image, format: ImageFormat) -> Tensor:
    """Resized and normalised as the processor does: `[3, H, W]`, fp32, not padded."""
    size = format.resized(*image.size)
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (pixels - torch.tensor(format.mean)[:, None, None]) / torch.tensor(format.std)[:, None, None]


def _as_stated(bbox: Tensor, iscrowd: Tensor, row: dict[str, Any], image: Image.Image) -> tuple[Tensor, Tensor]:
    """Boxes of an image that is stored at another size than stated, of the same shape, scaled to its real size."""
    across, down = image.width / max(row["width"], 1), image.height / max(row["height"], 1)
    if abs(across - down) < 0.02 * max(across, down) and abs(across - 1) > 0.02:
        bbox = bbox * torch.tensor([across, down, across, down])
    return bbox, iscrowd


def _augment(
    random: Generator, image: Image.Image, boxes: Tensor, labels: Tensor, kind: Augmentation
) -> tuple[Image.Image, Tensor, Tensor]:
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        boxes = torch.stack([image.width - boxes[:, 2], boxes[:, 1], image.width - boxes[:, 0], boxes[:, 3]], -1)
    if random.random() < 0.5:
        image, boxes, labels = _crop(random, image, boxes, labels)
    if kind == "light":
        for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = enhance(image).enhance(float(random.uniform(1 - _JITTER, 1 + _JITTER)))
    return image, boxes, labels


def _crop(random: Generator, image: Image.Image, boxes: Tensor, labels: Tensor) -> tuple[Image.Image, Tensor, Tensor]:
    """A random window; boxes that lose most of their area leave, the others are cut at its border."""
    width, height = (int(side * random.uniform(_LEAST_CROP, 1)) for side in image.size)
    left, top = int(random.integers(image.width - width + 1)), int(random.integers(image.height - height + 1))
    window = torch.tensor([left, top, left + width, top + height], dtype=boxes.dtype)
    low, high = torch.maximum(boxes[:, :2], window[:2]), torch.minimum(boxes[:, 2:], window[2:])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    keep = (high - low).clamp(min=0).prod(-1) > _LEAST_LEFT * area
    cut = torch.cat([low, high], -1) - window[:2].repeat(2)
    return image.crop((left, top, left + width, top + height)), cut[keep], labels[keep]
