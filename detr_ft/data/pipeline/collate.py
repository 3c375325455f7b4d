"""From examples to a batch: images padded to the largest, with the mask that says what is image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def collate(
    examples: Sequence[dict[str, Any]], canvas: tuple[int, int] | None = None, rounding: int = 1
) -> dict[str, Any]:
    """`pixel_values [B, 3, H, W]`, bytes, `pixel_mask [B, H, W]` (true where image) and `labels`, a list of B dictionaries.

    Images are padded to the `canvas` (height, width), or where there is none to the largest of them,
    its sides rounded up to a multiple of `rounding`, so that batches come in few shapes. A convolution tells
    padding from the end of the image, so a model is to be asked on the canvas that it was trained on. Bytes, because they
    travel to a device four times as fast as floats: `ImageFormat.normalise` makes of them what a model takes.
    """
    largest = (max(example["pixel_values"].shape[side] for example in examples) for side in (1, 2))
    height, width = canvas or (-(-side // rounding) * rounding for side in largest)
    pixels = torch.zeros(len(examples), height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)  # channels last
    mask = torch.zeros(len(examples), height, width, dtype=torch.bool)
    for index, example in enumerate(examples):
        _, h, w = example["pixel_values"].shape
        pixels[index, :, :h, :w] = example["pixel_values"]
        mask[index, :h, :w] = True
    return {"pixel_values": pixels, "pixel_mask": mask, "labels": [example["labels"] for example in examples]}
