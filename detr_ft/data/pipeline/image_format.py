"""The image format of a checkpoint: size, normalization and padding."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import get_image_size_for_max_height_width

from detr_ft.errors import InputError


@dataclass(frozen=True)
class ImageFormat:
    """Size, normalization and padding of a checkpoint's image processor.

    `size` has the keys that the processor writes. `mean` and `std` are by channel. `canvas` is the height and width
    that every image is padded to; None means the largest image of a batch.
    """

    size: Mapping[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    canvas: tuple[int, int] | None = None

    @classmethod
    def of(cls, processor: Any) -> ImageFormat:
        """Return the format of an image processor, which `preprocessor_config.json` suffices to load.

        Raises InputError for a processor that does not preserve the aspect ratio or does not resize.
        """
        size = {key: value for key, value in dict(processor.size).items() if value is not None}
        if set(size) not in ({"max_height", "max_width"}, {"shortest_edge", "longest_edge"}, {"shortest_edge"}):
            raise InputError(
                f"preprocessor_config.json: the image processor resizes to {size}, which changes the aspect ratio. "
                "Set data.longest_edge in the recipe."
            )
        if not processor.do_resize:
            raise InputError(
                "preprocessor_config.json: the image processor does not resize, but training does. Set do_resize to true."
            )
        return cls(size, tuple(processor.image_mean), tuple(processor.image_std), canvas_of(processor))

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Return width and height after resizing, rounded as by the processor. Raises InputError for 0."""
        if "max_height" in self.size:
            size = get_image_size_for_max_height_width((height, width), self.size["max_height"], self.size["max_width"])
        else:
            size = get_size_with_aspect_ratio(
                (height, width), self.size["shortest_edge"], self.size.get("longest_edge")
            )
        if min(size) < 1:
            raise InputError(
                f"an image of {width}x{height} pixels is too thin: resized to {dict(self.size)}, a side is 0 pixels. Crop it."
            )
        return int(size[1]), int(size[0])

    @property
    def rounding(self) -> int:
        """The multiple that sides of a batch are rounded up to for few shapes: a fifth of an image's."""
        side = self.size.get("shortest_edge") or min(self.size["max_height"], self.size["max_width"])
        return -(-side // 5)

    def normalize(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return a batch of bytes as the model expects it: pixels normalized as by the processor, padding 0.

        Runs on the batch's device: bytes are a quarter of the traffic of floats, and the CPU cores have less work.
        """
        data = batch["pixel_values"].permute(0, 2, 3, 1)  # [B, H, W, 3], the order in memory
        height, width = data.shape[1:3]
        std = torch.tensor(self.std)
        # Broadcasting over a row of pixels; over the three channels alone it would take three times as long.
        factor = (1 / 255 / std).repeat(width).to(data.device, non_blocking=True)
        offset = (torch.tensor(self.mean) / std).repeat(width).to(data.device, non_blocking=True)
        pixels = data.reshape(-1, height, width * 3).float().mul_(factor).sub_(offset).view(-1, height, width, 3)
        pixels = pixels.mul_(batch["pixel_mask"][..., None]).permute(0, 3, 1, 2)
        return {**batch, "pixel_values": pixels}


def with_longest_edge(processor: Any, longest_edge: int | None) -> Any:
    """Return a copy of an image processor that resizes to `longest_edge` pixels; itself for None.

    If the processor pads to a fixed canvas, the copy pads to a square with sides of `longest_edge`.
    """
    if longest_edge is None:
        return processor
    resized = copy(processor)
    resized.size = {"max_height": longest_edge, "max_width": longest_edge}
    if resized.pad_size is not None:
        resized.pad_size = {"height": longest_edge, "width": longest_edge}
    return resized


def canvas_of(processor: Any) -> tuple[int, int] | None:
    """Return the height and width that images are padded to, or None for the largest of a batch.

    Raises InputError for a canvas that is smaller than the images.
    """
    if not (processor.do_pad and processor.pad_size):
        return None
    pad, size = dict(processor.pad_size), dict(processor.size)
    canvas = int(pad["height"]), int(pad["width"])
    longest = max(size.get(key) or 0 for key in ("longest_edge", "max_height", "max_width"))
    if min(canvas) < longest:
        raise InputError(
            f"preprocessor_config.json: images of {longest} pixels don't fit pad_size {canvas[0]} x {canvas[1]}. "
            "Correct pad_size, or set data.longest_edge in the recipe."
        )
    return canvas
