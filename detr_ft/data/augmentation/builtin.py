"""Augmentations: a sample in, another out. Each is drawn from the generator that it is given, and from nothing else.

The contract: a callable `(sample, random, another) -> sample`, where `another()` draws some other sample of the split. It may
change the image's size (the model's format resizes it afterwards), and moves boxes by the methods of `Sample` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from numpy.random import Generator
from torch import Tensor

from detr_ft.data.pipeline.sample import MIN_VISIBLE, Sample

# The paper shows an image at 480 to 800 pixels of its shorter side, in steps of 32: fractions of the full size.
_SCALES = tuple(side / 800 for side in range(480, 801, 32))


class Augmentation(Protocol):
    """A callable `(sample, random, another) -> sample`."""

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        """The sample changed, by what `random` draws; `another()` is some other sample of the split."""


@runtime_checkable
class Mixing(Augmentation, Protocol):
    """One that makes images of several, which end before training does: `data.mixing_epochs` says when."""

    def without_mixing(self) -> Augmentation:
        """The same without images made of several."""


@dataclass(frozen=True)
class Light:
    """Flips, crops that keep most of the image, gentle colours: for small sets and short runs."""

    min_crop: float = 0.6  # of each side
    jitter: float = 0.25
    min_visible: float = MIN_VISIBLE

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        sample = _flip(sample, random)
        if random.random() < 0.5:
            sample = _crop(sample, random, self.min_crop, self.min_visible)
        return shift_colors(sample, random, self.jitter) if self.jitter else sample


@dataclass(frozen=True)
class DetrAugmentation:
    """Flip, crop and scale jitter as in the paper, for images and models of any size.

    Carion et al., ECCV 2020, appendix A.4: half of the images are shown at 60 to 100 % of the full size, the others are
    first cropped to a random window.
    """

    min_crop: float = 0.5  # of each side
    min_visible: float = MIN_VISIBLE

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        sample = _flip(sample, random)
        if random.random() < 0.5:
            sample = _crop(sample, random, self.min_crop, self.min_visible)
        return replace(sample, scale=sample.scale * float(random.choice(_SCALES)))


@dataclass(frozen=True)
class Strong:
    """`DetrAugmentation` with stronger colours and, while `mixing`, images made of several: for long runs on enough memory of epochs.

    Of the images `mosaics` are a mosaic of four (Bochkovskiy et al., 2020), `mix_ups` are blended with another (Zhang et al.,
    ICLR 2018), `pastes` get objects of another pasted in (Ghiasi et al., CVPR 2021). Such images don't occur in the world: the
    last epochs go without.
    """

    mosaics: float = 0.4
    mix_ups: float = 0.1
    pastes: float = 0.3
    jitter: float = 0.4
    min_visible: float = MIN_VISIBLE

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        drawn = random.random()
        if drawn < self.mosaics:
            sample = mosaic(sample, random, another, self.min_visible)
        elif drawn < self.mosaics + self.mix_ups:
            sample = mix_up(sample, random, another())
        elif drawn < self.mosaics + self.mix_ups + self.pastes:
            sample = paste(sample, random, another(), self.min_visible)
        sample = DetrAugmentation(min_visible=self.min_visible)(sample, random, another)
        return shift_colors(sample, random, self.jitter)

    def without_mixing(self) -> Strong:
        """The same without images made of several."""
        return replace(self, mosaics=0.0, mix_ups=0.0, pastes=0.0)


# `Detr` is the name that recipes use.
BUILT_IN: dict[str, type] = {
    "Light": Light,
    "Detr": DetrAugmentation,
    "DetrAugmentation": DetrAugmentation,
    "Strong": Strong,
}
NAMED: dict[str, Augmentation | None] = {"none": None, "light": Light(), "detr": DetrAugmentation(), "strong": Strong()}


def shift_colors(sample: Sample, random: Generator, jitter: float) -> Sample:
    """Brightness, contrast and saturation each changed by a factor of up to `jitter` more or less."""
    brightness, contrast, saturation = (float(random.uniform(1 - jitter, 1 + jitter)) for _ in range(3))
    grey = torch.tensor([0.299, 0.587, 0.114])  # how bright the eye finds red, green and blue (ITU-R BT.601)
    pixels = sample.image.permute(1, 2, 0).reshape(-1, 3).float()
    mean = float(pixels[:: max(1, len(pixels) // 4096)].mean(0) @ grey)
    # All three are affine in the colour of a pixel, so one matrix does.
    matrix = (saturation * torch.eye(3) + (1 - saturation) * grey.expand(3, 3)) * (brightness * contrast)
    shifted = torch.addmm(torch.full((3,), brightness * mean * (1 - contrast)), pixels, matrix.T)
    image = shifted.clamp_(0, 255).to(torch.uint8).reshape(sample.height, sample.width, 3).permute(2, 0, 1)
    return replace(sample, image=image)


def _flip(sample: Sample, random: Generator) -> Sample:
    return sample.flip() if random.random() < 0.5 else sample


def _crop(sample: Sample, random: Generator, least: float, min_visible: float) -> Sample:
    """A window of at least that part of each side, anywhere."""
    width, height = (max(1, int(side * random.uniform(least, 1))) for side in (sample.width, sample.height))
    left = int(random.integers(sample.width - width + 1))
    top = int(random.integers(sample.height - height + 1))
    return sample.crop(left, top, width, height, min_visible)


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
