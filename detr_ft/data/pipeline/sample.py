"""An image and its objects on the way into training. They move together: whatever moves pixels here moves boxes too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from detr_ft.data.box_frame import as_tensors, trainable_boxes
from detr_ft.data.images import open_image
from detr_ft.data.schema import provenance
from detr_ft.errors import InputError

# The part of a box's area that must still be seen, for it to count as there after a cut.
MIN_VISIBLE = 0.4


@dataclass(frozen=True, eq=False)
class Sample:
    """An image `[3, H, W]` in bytes, and its objects: `boxes [T, 4]` xyxy in its pixels, `labels [T]`, `crowd [T]`.

    `crowd` marks ignore regions. `scale` is how large the image is to be shown, as a fraction of the size that the model's
    format asks for.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    scale: float = 1.0

    @property
    def width(self) -> int:
        return self.image.shape[2]

    @property
    def height(self) -> int:
        return self.image.shape[1]

    def keep(self, rows: Tensor) -> Sample:
        """The same image with these of its objects, by index or mask."""
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], crowd=self.crowd[rows])

    def crop(self, left: int, top: int, width: int, height: int, min_visible: float = MIN_VISIBLE) -> Sample:
        """A window of the image; its boxes are cut at the border, and leave where less than that part of their area is seen."""
        window = torch.tensor([left, top, left + width, top + height], dtype=self.boxes.dtype)
        cut = _within(self.boxes, window)
        seen = _areas(cut) > min_visible * _areas(self.boxes)
        image = self.image[:, top : top + height, left : left + width]
        return replace(self, image=image, boxes=cut - window[:2].repeat(2)).keep(seen)

    def flip(self) -> Sample:
        """Mirrored, left for right."""
        x0, y0, x1, y1 = self.boxes.unbind(-1)
        boxes = torch.stack([self.width - x1, y0, self.width - x0, y1], -1)
        return replace(self, image=self.image.flip(-1), boxes=boxes)

    def resize(self, width: int, height: int) -> Sample:
        """At another size, bilinear and antialiased: within one grey level of Pillow's."""
        if (width, height) == (self.width, self.height):
            return self
        across, down = width / self.width, height / self.height
        boxes = self.boxes * torch.tensor([across, down, across, down], dtype=self.boxes.dtype)
        return replace(self, image=resize_bytes(self.image, width, height), boxes=boxes)


def read_sample(row: Mapping[str, Any]) -> Sample:
    """The sample of a row in the schema; boxes that nothing can be learned from are left out, others cut at the border.

    Raises ImageError where the image can't be read, and InputError where it isn't of the size that the row states.
    """
    image = open_image(row["image"])
    if image.size != (row["width"], row["height"]):
        name, stated = provenance(row["image"], row["image_id"]), f"{row['width']}x{row['height']}"
        raise InputError(
            f"{name}: its row states {stated}, it is {image.width}x{image.height} when upright; "
            "detr_ft.data.integrity.usable_images.with_true_sizes makes its split as it should be"
        )
    bbox, crowd = as_tensors(row["objects"])
    boxes, kept, _ = trainable_boxes(bbox, torch.zeros_like(crowd), *image.size)  # crowds too
    labels = torch.tensor(row["objects"]["category"], dtype=torch.long)
    return Sample(as_bytes(image), boxes, labels[kept], crowd[kept])


def fault_of(sample: object) -> str | None:
    """What is wrong with what an augmentation returned, as the end of a sentence about it; None where it is a sample."""
    if not isinstance(sample, Sample):
        return f"returned a {type(sample).__name__}, not a Sample"
    image, boxes, count = sample.image, sample.boxes, len(sample.boxes)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        return f"returned an image {list(image.shape)} of {image.dtype}; it is bytes [3, H, W]"
    if boxes.shape != (count, 4) or not boxes.is_floating_point():
        return f"returned boxes {list(boxes.shape)} of {boxes.dtype}; they are floats [T, 4], xyxy in pixels"
    if sample.labels.shape != (count,) or sample.labels.dtype != torch.long:
        return f"returned {count} boxes with labels {list(sample.labels.shape)} of {sample.labels.dtype}; keep() moves both"
    if sample.crowd.shape != (count,) or sample.crowd.dtype != torch.bool:
        return (
            f"returned {count} boxes with crowd {list(sample.crowd.shape)} of {sample.crowd.dtype}; keep() moves both"
        )
    limit = torch.tensor([sample.width, sample.height], dtype=boxes.dtype)
    inside = (boxes[:, :2] >= -1) & (boxes[:, 2:] <= limit + 1) & (boxes[:, 2:] > boxes[:, :2])  # false for NaN
    if not inside.all():
        box = [round(value, 1) for value in boxes[~inside.all(1)][0].tolist()]
        return f"returned the box {box}, which is no xyxy within its image of {sample.width}x{sample.height} pixels"
    return None if 0 < sample.scale < math.inf else f"returned the scale {sample.scale}; it is a number above 0"


def as_bytes(image: Image.Image) -> Tensor:
    """An RGB image as bytes `[3, H, W]`, in memory `[H, W, 3]` as the decoder wrote it."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize_bytes(image: Tensor, width: int, height: int) -> Tensor:
    """An image in bytes `[3, H, W]` at another size, bilinear and antialiased.

    Within one grey level of Pillow's resampling, which the processor of transformers uses without torchvision; of pure noise,
    a pixel in some thousands is off by two.
    """
    # Axes in this order: a batch made by `[None]` hides from PyTorch that the channels lie side by side, at half the speed.
    batch = image.permute(1, 2, 0)[None].contiguous().permute(0, 3, 1, 2)
    return interpolate(batch, size=(height, width), mode="bilinear", antialias=True)[0]


def _within(boxes: Tensor, window: Tensor) -> Tensor:
    low, high = torch.maximum(boxes[:, :2], window[:2]), torch.minimum(boxes[:, 2:], window[2:])
    return torch.cat([low, torch.maximum(low, high)], -1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)
