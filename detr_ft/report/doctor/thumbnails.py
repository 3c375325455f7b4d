"""Small pictures of what was found: the image with the box in question, or two images side by side."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import torch
from datasets import DatasetDict
from PIL import Image

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.data.doctor.finding import Finding
from detr_ft.data.images import ImageError, open_image
from detr_ft.data.schema import class_names
from detr_ft.utils.drawing import draw

MAX_EXAMPLES = 12
_BYTES = 3_000_000
# Longest side and JPEG quality, tried in turn until all pictures together are small enough.
_SIZES = ((400, 80), (300, 75), (220, 65), (160, 55))
_MOST_BOXES = 100  # drawn on one image

Pictures = Mapping[int, str]


def thumbnails(findings: Mapping[str, Sequence[Finding]], data: DatasetDict) -> Pictures:
    """A picture, as a data URI, for the first findings of each kind: by the finding's `id()`; none where no image opens."""
    chosen = [one for some in findings.values() for one in some[:MAX_EXAMPLES] if one.row is not None]
    pictures: dict[int, str] = {}
    for side, quality in _SIZES:
        pictures = {}
        for one in chosen:
            picture = _picture(one, data, side)
            if picture is not None:
                pictures[id(one)] = _uri(picture, quality)
        if sum(map(len, pictures.values())) <= _BYTES:
            return pictures
    return dict(list(pictures.items())[: len(pictures) // 2])


def _picture(one: Finding, data: DatasetDict, side: int) -> Image.Image | None:
    if one.row is None:
        return None
    try:
        if one.like is None:
            return _drawn(one, data, side)
        split, row = one.like
        return _beside(
            [_small(data[one.split][one.row], side // 2)[0], _small(data[split][row], side // 2)[0]], gap=side // 40
        )
    except ImageError:
        return None


def _drawn(one: Finding, data: DatasetDict, side: int) -> Image.Image:
    """The image with the box of the finding, or with all of its boxes where it is about none of them."""
    rows = data[one.split]
    row = rows[one.row]
    image, scale = _small(row, side)
    objects, names = row["objects"], class_names(rows)
    places = range(min(len(objects["bbox"]), _MOST_BOXES)) if one.place is None else [one.place]
    boxes = torch.tensor([objects["bbox"][place] for place in places], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([objects["category"][place] for place in places], dtype=torch.long)
    keep = boxes.isfinite().all(-1) & (labels >= 0) & (labels < len(names))
    drawn = draw(image, xywh_to_xyxy(boxes[keep]) * scale, labels[keep], names)
    drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
    return drawn


def _small(row: Mapping[str, Any], side: int) -> tuple[Image.Image, float]:
    """The image of a row, no larger than `side`, and by how much it was scaled."""
    image = open_image(row["image"])
    scale = min(1.0, side / max(image.size))
    if scale == 1:
        return image, scale
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2), scale


def _beside(images: Sequence[Image.Image], gap: int) -> Image.Image:
    width = sum(one.width for one in images) + gap * (len(images) - 1)
    canvas = Image.new("RGB", (width, max(one.height for one in images)), "white")
    left = 0
    for one in images:
        canvas.paste(one, (left, 0))
        left += one.width + gap
    return canvas


def _uri(image: Image.Image, quality: int) -> str:
    stream = BytesIO()
    # Full colour resolution: thin coloured lines blur without it. Not optimized: Pillow's buffer is then too small for noise.
    image.save(stream, "JPEG", quality=quality, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
