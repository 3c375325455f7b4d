"""An image with its objects during augmentation. Each operation transforms pixels and boxes together."""

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

# A box remains after a crop if more than this fraction of its area is visible.
MIN_VISIBLE = 0.4


@dataclass(frozen=True, eq=False)
class Sample:
    """An image `[3, H, W]` in bytes, and its objects: `boxes [T, 4]`, `labels [T]` and `crowd [T]`.

    Boxes are xyxy in pixels. `crowd` is True for ignore regions. `scale` multiplies the size of the model's image
    format.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    scale: float = 1.0

    @property
    def width(self) -> int:
        """W in pixels."""
        return self.image.shape[2]

    @property
    def height(self) -> int:
        """H in pixels."""
        return self.image.shape[1]

    def keep(self, rows: Tensor) -> Sample:
        """Return the same image with these of its objects, by index or mask."""
        return replace(self, boxes=self.boxes[rows], labels=self.labels[rows], crowd=self.crowd[rows])

    def crop(self, left: int, top: int, width: int, height: int, min_visible: float = MIN_VISIBLE) -> Sample:
        """Return a window of the image; boxes with at most `min_visible` of their area are removed."""
        window = torch.tensor([left, top, left + width, top + height], dtype=self.boxes.dtype)
        clipped = _clip(self.boxes, window)
        visible = _areas(clipped) > min_visible * _areas(self.boxes)
        image = self.image[:, top : top + height, left : left + width]
        return replace(self, image=image, boxes=clipped - window[:2].repeat(2)).keep(visible)

    def flip(self) -> Sample:
        """Return the image mirrored horizontally."""
        x0, y0, x1, y1 = self.boxes.unbind(-1)
        boxes = torch.stack([self.width - x1, y0, self.width - x0, y1], -1)
        return replace(self, image=self.image.flip(-1), boxes=boxes)

    def resize(self, width: int, height: int) -> Sample:
        """Return the image at another size, bilinear and antialiased: within one gray level of Pillow's."""
        if (width, height) == (self.width, self.height):
            return self
        across, down = width / self.width, height / self.height
        boxes = self.boxes * torch.tensor([across, down, across, down], dtype=self.boxes.dtype)
        return replace(self, image=resize_bytes(self.image, width, height), boxes=boxes)


def read_sample(row: Mapping[str, Any]) -> Sample:
    """Return the sample of a row, without boxes that can't be trained on, the others clipped.

    Raises ImageError if the image can't be read, and InputError if its size differs from the row's.
    """
    image = open_image(row["image"])
    if image.size != (row["width"], row["height"]):
        name, stated = provenance(row["image"], row["image_id"]), f"{row['width']}x{row['height']}"
        raise InputError(
            f"{name}: its row states {stated}, the upright image is {image.width}x{image.height}. "
            "Correct the split by detr_ft.data.integrity.usable_images.with_true_sizes."
        )
    bbox, crowd = as_tensors(row["objects"])
    boxes, rows, _ = trainable_boxes(bbox, torch.zeros_like(crowd), *image.size)  # crowds included
    labels = torch.tensor(row["objects"]["category"], dtype=torch.long)
    return Sample(as_bytes(image), boxes, labels[rows], crowd[rows])


def fault_of(sample: object) -> str | None:
    """Return the fault of an augmentation's result, to follow its name, or None for a valid sample."""
    if not isinstance(sample, Sample):
        return f"returned a {type(sample).__name__}, not a Sample"
    image, boxes, count = sample.image, sample.boxes, len(sample.boxes)
    if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
        return f"returned an image {list(image.shape)} of {image.dtype}; it must be uint8 [3, H, W]"
    if boxes.shape != (count, 4) or not boxes.is_floating_point():
        return f"returned boxes {list(boxes.shape)} of {boxes.dtype}; they must be floats [T, 4], xyxy in pixels"
    if sample.labels.shape != (count,) or sample.labels.dtype != torch.long:
        return f"returned {count} boxes with labels {list(sample.labels.shape)} of {sample.labels.dtype}; keep() selects both"
    if sample.crowd.shape != (count,) or sample.crowd.dtype != torch.bool:
        return (
            f"returned {count} boxes with crowd {list(sample.crowd.shape)} of {sample.crowd.dtype}; keep() selects both"
        )
    limit = torch.tensor([sample.width, sample.height], dtype=boxes.dtype)
    inside = (boxes[:, :2] >= -1) & (boxes[:, 2:] <= limit + 1) & (boxes[:, 2:] > boxes[:, :2])  # false for NaN
    if not inside.all():
        box = [round(value, 1) for value in boxes[~inside.all(1)][0].tolist()]
        return f"returned the box {box}, which is not xyxy within its image of {sample.width}x{sample.height} pixels"
    return None if 0 < sample.scale < math.inf else f"returned the scale {sample.scale}; it must be above 0"


def as_bytes(image: Image.Image) -> Tensor:
    """Return an RGB image as bytes `[3, H, W]`, in memory `[H, W, 3]` as decoded."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def resize_bytes(image: Tensor, width: int, height: int) -> Tensor:
    """Resize an image in bytes `[3, H, W]`, bilinear and antialiased.

    Within one gray level of Pillow's resampling, which the processor of transformers uses without torchvision; for pure
    noise, one pixel in some thousands differs by two.
    """
    # This order of axes: after `[None]` alone PyTorch does not see that channels are contiguous, and runs at half the speed.
    batch = image.permute(1, 2, 0)[None].contiguous().permute(0, 3, 1, 2)
    return interpolate(batch, size=(height, width), mode="bilinear", antialias=True)[0]


def _clip(boxes: Tensor, window: Tensor) -> Tensor:
    low, high = torch.maximum(boxes[:, :2], window[:2]), torch.minimum(boxes[:, 2:], window[2:])
    return torch.cat([low, torch.maximum(low, high)], -1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(-1)
