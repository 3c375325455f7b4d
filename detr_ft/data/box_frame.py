"""The box frame: pixels of the upright image in data, fractions of the un-padded image in the model.

Training, prediction, previews and the demo convert by this module alone. It also selects the boxes to train on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import cxcywh_to_xyxy, xywh_to_xyxy, xyxy_to_cxcywh

Sizes = Tensor | tuple[float, float]  # width and height, `[..., 2]`

MIN_SIDE_PX = 1e-3  # thinner boxes count as empty
_MODERATE = 1e6  # pixels; numbers that float32 represents to a fraction of a pixel


@dataclass(frozen=True)
class BoxCounts:
    """Numbers of boxes that are trained on, `clipped` among them, and of others by reason."""

    trainable: int = 0
    clipped: int = 0
    dropped_empty: int = 0
    dropped_not_finite: int = 0
    dropped_outside: int = 0
    crowds: int = 0

    def __add__(self, other: BoxCounts) -> BoxCounts:
        return BoxCounts(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def _values(self) -> tuple[int, ...]:
        return (
            self.trainable, self.clipped, self.dropped_empty, self.dropped_not_finite, self.dropped_outside, self.crowds,
        )  # fmt: skip

    @property
    def unused(self) -> int:
        """The number of boxes that are left out, without crowds."""
        return self.dropped_empty + self.dropped_not_finite + self.dropped_outside

    def __str__(self) -> str:
        reasons = {
            "clipped to the image": self.clipped,
            "dropped without area": self.dropped_empty,
            "dropped for NaN or infinite numbers": self.dropped_not_finite,
            "dropped outside the image": self.dropped_outside,
            "crowds left out": self.crowds,
        }
        parts = [f"{count} {reason}" for reason, count in reasons.items() if count]
        return ", ".join([f"{self.trainable} boxes are trained on", *parts])


def trainable_boxes(bbox: Tensor, iscrowd: Tensor, width: float, height: float) -> tuple[Tensor, Tensor, BoxCounts]:
    """Return the boxes to train on, xyxy in pixels `[N, 4]`, their rows `[N]`, and the counts.

    Boxes are clipped to the image. `bbox [T, 4]` is COCO xywh in pixels of an image of `width` x `height`.
    """
    finite = bbox.isfinite().all(-1)
    positive = finite & (bbox[:, 2:] > MIN_SIDE_PX).all(-1)
    corners = xywh_to_xyxy(torch.where(finite[:, None], bbox, torch.zeros_like(bbox)))
    limit = torch.tensor([width, height, width, height], dtype=corners.dtype)
    clipped = torch.minimum(corners.clamp(min=0), limit)
    inside = positive & (clipped[:, 2:] - clipped[:, :2] > MIN_SIDE_PX).all(-1)
    trainable = inside & ~iscrowd
    changed = trainable & ((clipped - corners).abs() > 0.5).any(-1)
    counts = BoxCounts(
        trainable=int(trainable.sum()),
        clipped=int(changed.sum()),
        dropped_empty=int((finite & ~positive).sum()),
        dropped_not_finite=int((~finite).sum()),
        dropped_outside=int((positive & ~inside).sum()),
        crowds=int((inside & iscrowd).sum()),
    )
    return clipped[trainable], trainable.nonzero()[:, 0], counts


def unusable_boxes(objects: dict[str, list[object]], width: float, height: float) -> str:
    """Return why the boxes of an image can't be learned; empty if all are finite and one is usable.

    Without its boxes the image would be learned as one without objects. Crowds are usable.
    """
    boxes: Iterable[Any] = objects["bbox"]
    if not boxes or (all(map(_is_moderate, boxes)) and any(_is_inside(box, width, height) for box in boxes)):
        return ""  # of nearly all images, without a tensor
    counts = trainable_boxes(*as_tensors(objects), width, height)[2]
    if counts.dropped_not_finite:
        return f"{counts.dropped_not_finite} of its boxes have NaN or infinite numbers"
    if counts.trainable or counts.crowds or not min(width, height) > 0:
        return ""
    return f"none of its {len(objects['bbox'])} boxes has an area inside the image"


def _is_moderate(box: Sequence[float]) -> bool:
    return all(abs(number) < _MODERATE for number in box)  # False for NaN


def _is_inside(box: Sequence[float], width: float, height: float) -> bool:
    x, y, w, h = box
    return min(w, h, min(x + w, width) - max(x, 0), min(y + h, height) - max(y, 0)) > 2 * MIN_SIDE_PX


def count_boxes(split: Dataset) -> BoxCounts:
    """Count the boxes of a split that training uses, from the stated image sizes; no image is opened."""
    columns: Iterable[tuple[dict[str, list[object]], int, int]] = zip(
        split["objects"], split["width"], split["height"], strict=True
    )
    total = BoxCounts()
    for objects, width, height in columns:
        bbox, iscrowd = as_tensors(objects)
        total = total + trainable_boxes(bbox, iscrowd, width, height)[2]
    return total


def as_tensors(objects: dict[str, list[object]]) -> tuple[Tensor, Tensor]:
    """Return `bbox [T, 4]` and `iscrowd [T]` of a row's objects."""
    bbox = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
    return bbox, torch.tensor(objects["iscrowd"], dtype=torch.bool)


def to_fractions(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Convert xyxy in pixels to cxcywh in fractions `[..., N, 4]` of images of `sizes [..., 2]`."""
    return xyxy_to_cxcywh(boxes) / _sides(boxes, sizes)


def to_pixels(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Convert cxcywh in fractions to xyxy in pixels `[..., N, 4]` of images of `sizes [..., 2]`."""
    return cxcywh_to_xyxy(boxes) * _sides(boxes, sizes)


def _sides(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Return width, height, width, height of each image, `[..., 1, 4]`."""
    sides = torch.as_tensor(sizes, dtype=boxes.dtype, device=boxes.device)
    return torch.cat([sides, sides], -1)[..., None, :]
