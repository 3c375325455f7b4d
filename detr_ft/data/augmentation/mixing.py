"""Images made of several: mosaic, mix-up, copy and paste. Boxes that are covered leave, by the same rule as in a crop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from numpy.random import Generator
from torch import Tensor

from detr_ft.data.pipeline.sample import Sample

_MOST_PASTED = 4


def mosaic(sample: Sample, random: Generator, another: Callable[[], Sample], min_visible: float) -> Sample:
    """Four samples around a random point of a canvas of the first one's size, each filling its quarter.

    Bochkovskiy et al., YOLOv4, 2020, section 3.3.
    """
    width, height = sample.width, sample.height
    x, y = (max(1, min(side - 1, int(side * random.uniform(0.3, 0.7)))) for side in (width, height))
    if min(width, height) < 2:
        return sample
    canvas = torch.empty(height, width, 3, dtype=torch.uint8).permute(2, 0, 1)
    parts: list[Sample] = []
    for left, top, right, bottom in ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height)):
        part = _fill(sample if not parts else another(), random, right - left, bottom - top, min_visible)
        canvas[:, top:bottom, left:right] = part.image
        parts.append(replace(part, boxes=part.boxes + torch.tensor([left, top, left, top])))
    return _joined(canvas, parts, sample.scale)


def mix_up(sample: Sample, random: Generator, other: Sample) -> Sample:
    """Two samples blended half and half, more or less, with the objects of both.

    Zhang et al., mixup, ICLR 2018; for detection: Zhang et al., Bag of Freebies, 2019, section 3.1, with Beta(1.5, 1.5).
    """
    share = float(random.beta(1.5, 1.5))
    other = other.resize(sample.width, sample.height)
    blended = torch.lerp(other.image.float(), sample.image.float(), share).round_().to(torch.uint8)
    return _joined(blended, [sample, other], sample.scale)


def paste(sample: Sample, random: Generator, other: Sample, min_visible: float) -> Sample:
    """Objects of another sample, cut out by their boxes, pasted at random places; what they cover too much leaves.

    After Ghiasi et al., Simple Copy-Paste, CVPR 2021, which cuts by masks; boxes bring a rim of their background along.
    """
    pastable = (~other.crowd).nonzero()[:, 0]
    chosen = pastable[torch.from_numpy(random.permutation(len(pastable)))][:_MOST_PASTED]
    image = sample.image.clone()
    for row in chosen.tolist():
        left, top, right, bottom = (round(value) for value in other.boxes[row].tolist())
        width, height = right - left, bottom - top
        if not (0 < width < sample.width and 0 < height < sample.height):
            continue
        x, y = int(random.integers(sample.width - width)), int(random.integers(sample.height - height))
        image[:, y : y + height, x : x + width] = other.image[:, top:bottom, left:right]
        place = torch.tensor([[x, y, x + width, y + height]], dtype=sample.boxes.dtype)
        seen = sample.keep(_part_seen(sample.boxes, place[0]) > min_visible)
        pasted = replace(other, boxes=place, labels=other.labels[row, None], crowd=other.crowd[row, None])
        sample = _joined(image, [seen, pasted], sample.scale)
    return replace(sample, image=image)


def _fill(sample: Sample, random: Generator, width: int, height: int, min_visible: float) -> Sample:
    """A random window of the sample, as large as the shape allows, resized to that size."""
    # Cut first: the whole of a thin image, enlarged to fill, may not fit into memory.
    ratio = max(width / sample.width, height / sample.height)
    across, down = (
        max(1, min(side, round(wanted / ratio))) for side, wanted in ((sample.width, width), (sample.height, height))
    )
    left, top = int(random.integers(sample.width - across + 1)), int(random.integers(sample.height - down + 1))
    return sample.crop(left, top, across, down, min_visible).resize(width, height)


def _joined(image: Tensor, parts: list[Sample], scale: float) -> Sample:
    """An image with the objects of all parts."""
    return Sample(
        image,
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.crowd for part in parts]),
        scale,
    )


def _part_seen(boxes: Tensor, cover: Tensor) -> Tensor:
    """The part of each box `[T, 4]` that a cover `[4]`, all xyxy, leaves free: `[T]`."""
    sides = (torch.minimum(boxes[:, 2:], cover[2:]) - torch.maximum(boxes[:, :2], cover[:2])).clamp(min=0)
    return 1 - sides.prod(-1) / (boxes[:, 2:] - boxes[:, :2]).prod(-1)
