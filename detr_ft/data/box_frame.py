"""The box frame: pixels of the upright image at the source, fractions of the un-padded image inside the model.

The only module that converts between the two, and that decides which boxes can be trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import cxcywh_to_xyxy, xywh_to_xyxy, xyxy_to_cxcywh

Sizes = Tensor | tuple[float, float]  # width and height, `[..., 2]`

LEAST_SIDE = 1e-3  # pixels; thinner boxes have no area to speak of


@dataclass(frozen=True)
class BoxCounts:
    """What became of the boxes of a data set on their way into training."""

    kept: int = 0
    clipped: int = 0
    dropped_empty: int = 0
    dropped_not_finite: int = 0
    dropped_outside: int = 0
    crowds: int = 0

    def __add__(self, other: BoxCounts) -> BoxCounts:
        return BoxCounts(*(a + b for a, b in zip(self._values(), other._values(), strict=True)))

    def _values(self) -> tuple[int, ...]:
        return (
            self.kept, self.clipped, self.dropped_empty, self.dropped_not_finite, self.dropped_outside, self.crowds,
        )  # fmt: skip

    def __str__(self) -> str:
        parts = [f"{self.kept} boxes are trained on"]
        notes = {
            "clipped to the image": self.clipped,
            "dropped for having no area": self.dropped_empty,
            "dropped for NaN or infinite numbers": self.dropped_not_finite,
            "dropped for lying outside the image": self.dropped_outside,
            "crowds left out": self.crowds,
        }
        return ", ".join(parts + [f"{count} {what}" for what, count in notes.items() if count])


def trainable_boxes(bbox: Tensor, iscrowd: Tensor, width: float, height: float) -> tuple[Tensor, Tensor, BoxCounts]:
    """Boxes to train on, which rows they come from, and what became of the rest.

    `bbox [T, 4]` is COCO xywh in pixels of an image of `width` x `height`; answers xyxy pixels `[N, 4]` clipped to the
    image, and the indices `[N]` of their rows.
    """
    finite = bbox.isfinite().all(-1)
    positive = finite & (bbox[:, 2:] > LEAST_SIDE).all(-1)
    corners = xywh_to_xyxy(torch.where(finite[:, None], bbox, torch.zeros_like(bbox)))
    limit = torch.tensor([width, height, width, height], dtype=corners.dtype)
    clipped = torch.minimum(corners.clamp(min=0), limit)
    inside = positive & (clipped[:, 2:] - clipped[:, :2] > LEAST_SIDE).all(-1)
    keep = inside & ~iscrowd
    changed = keep & ((clipped - corners).abs() > 0.5).any(-1)
    counts = BoxCounts(
        kept=int(keep.sum()),
        clipped=int(changed.sum()),
        dropped_empty=int((finite & ~positive).sum()),
        dropped_not_finite=int((~finite).sum()),
        dropped_outside=int((positive & ~inside).sum()),
        crowds=int((inside & iscrowd).sum()),
    )
    return clipped[keep], keep.nonzero()[:, 0], counts


def count_boxes(split: Dataset) -> BoxCounts:
    """What training will make of the boxes of a split, from the stated sizes, without opening an image."""
    columns: Iterable[tuple[dict[str, list[object]], int, int]] = zip(
        split["objects"], split["width"], split["height"], strict=True
    )
    total = BoxCounts()
    for objects, width, height in columns:
        bbox, iscrowd = as_tensors(objects)
        total = total + trainable_boxes(bbox, iscrowd, width, height)[2]
    return total


def as_tensors(objects: dict[str, list[object]]) -> tuple[Tensor, Tensor]:
    """`bbox [T, 4]` and `iscrowd [T]` of a row's objects."""
    bbox = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
    return bbox, torch.tensor(objects["iscrowd"], dtype=torch.bool)


def to_fractions(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Convert xyxy in pixels `[..., N, 4]` to cxcywh in fractions of un-padded images of `sizes [..., 2]`, width and height."""
    return xyxy_to_cxcywh(boxes) / _sides(boxes, sizes)


def to_pixels(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Convert cxcywh in fractions `[..., N, 4]` to xyxy in pixels of un-padded images of `sizes [..., 2]`, width and height."""
    return cxcywh_to_xyxy(boxes) * _sides(boxes, sizes)


def _sides(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Width, height, width, height of each image, `[..., 1, 4]`."""
    sides = torch.as_tensor(sizes, dtype=boxes.dtype, device=boxes.device)
    return torch.cat([sides, sides], -1)[..., None, :]
