"""Built-in augmentations, the contract of an augmentation, and the mixing of several images.

The contract: a callable `(sample, random, another) -> sample` that draws random numbers from `random` only. `another()`
returns another sample of the split. The size of the image may change (the model's image format resizes it afterwards), and
boxes change by the methods of `Sample` only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from numpy.random import Generator
from torch import Tensor

from detr_ft.data.pipeline.sample import MIN_VISIBLE, Sample

# The paper resizes the shorter side to 480 to 800 pixels in steps of 32; here as fractions of the full size.
_SCALES = tuple(side / 800 for side in range(480, 801, 32))


class Augmentation(Protocol):
    """A callable `(sample, random, another) -> sample`."""

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        """Return the changed sample; `another()` returns another sample of the split."""


@runtime_checkable
class Mixing(Augmentation, Protocol):
    """An augmentation that mixes several images, in the first `data.mixing_epochs` epochs."""

    def without_mixing(self) -> Augmentation:
        """Return the same augmentation without mixing."""


@dataclass(frozen=True)
class Light:
    """Flips, crops of most of the image, slight changes of color: for small sets and short runs."""

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

    Carion et al., ECCV 2020, appendix A.4: images are resized to 60 to 100 % of the full size, half of them after a crop to a
    random window.
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
    """`DetrAugmentation` with larger changes of color and mixing of several images: for long runs.

    The fraction `mosaics` of the images are mosaics of four (Bochkovskiy et al., 2020), `mix_ups` are blended with another
    (Zhang et al., ICLR 2018), `pastes` contain objects of another (Ghiasi et al., CVPR 2021). Real images look different, so
    the last epochs do not mix.
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
        """Return the same augmentation without mixing."""
        return replace(self, mosaics=0.0, mix_ups=0.0, pastes=0.0)


# Recipes use the name `Detr`.
BUILT_IN: dict[str, type] = {
    "Light": Light,
    "Detr": DetrAugmentation,
    "DetrAugmentation": DetrAugmentation,
    "Strong": Strong,
}
NAMED: dict[str, Augmentation | None] = {"none": None, "light": Light(), "detr": DetrAugmentation(), "strong": Strong()}


def shift_colors(sample: Sample, random: Generator, jitter: float) -> Sample:
    """Change brightness, contrast and saturation, each by a factor of `1 - jitter` to `1 + jitter`."""
    brightness, contrast, saturation = (float(random.uniform(1 - jitter, 1 + jitter)) for _ in range(3))
    luma = torch.tensor([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
    pixels = sample.image.permute(1, 2, 0).reshape(-1, 3).float()
    mean = float(pixels[:: max(1, len(pixels) // 4096)].mean(0) @ luma)
    # All three are affine in the color of a pixel, so one matrix suffices.
    matrix = (saturation * torch.eye(3) + (1 - saturation) * luma.expand(3, 3)) * (brightness * contrast)
    shifted = torch.addmm(torch.full((3,), brightness * mean * (1 - contrast)), pixels, matrix.T)
    image = shifted.clamp_(0, 255).to(torch.uint8).reshape(sample.height, sample.width, 3).permute(2, 0, 1)
    return replace(sample, image=image)


def _flip(sample: Sample, random: Generator) -> Sample:
    return sample.flip() if random.random() < 0.5 else sample


def _crop(sample: Sample, random: Generator, min_side: float, min_visible: float) -> Sample:
    """Return a window at a random position, of at least the fraction `min_side` of each side."""
    width, height = (max(1, int(side * random.uniform(min_side, 1))) for side in (sample.width, sample.height))
    left = int(random.integers(sample.width - width + 1))
    top = int(random.integers(sample.height - height + 1))
    return sample.crop(left, top, width, height, min_visible)


_MAX_PASTED_OBJECTS = 4


def mosaic(sample: Sample, random: Generator, another: Callable[[], Sample], min_visible: float) -> Sample:
    """Return four samples around a random point of a canvas of the size of the first.

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
    """Return a blend of two samples with the objects of both.

    Zhang et al., mixup, ICLR 2018; for detection: Zhang et al., Bag of Freebies, 2019, section 3.1, with Beta(1.5, 1.5).
    """
    weight = float(random.beta(1.5, 1.5))
    other = other.resize(sample.width, sample.height)
    blended = torch.lerp(other.image.float(), sample.image.float(), weight).round_().to(torch.uint8)
    return _joined(blended, [sample, other], sample.scale)


def paste(sample: Sample, random: Generator, other: Sample, min_visible: float) -> Sample:
    """Return the sample with objects of another pasted at random positions.

    Boxes covered by more than `1 - min_visible` are removed. After Ghiasi et al., Simple Copy-Paste, CVPR 2021, which cuts by
    masks; cutting by boxes includes some background.
    """
    pastable = (~other.crowd).nonzero()[:, 0]
    chosen = pastable[torch.from_numpy(random.permutation(len(pastable)))][:_MAX_PASTED_OBJECTS]
    image = sample.image.clone()
    for row in chosen.tolist():
        left, top, right, bottom = (round(value) for value in other.boxes[row].tolist())
        width, height = right - left, bottom - top
        if not (0 < width < sample.width and 0 < height < sample.height):
            continue
        x, y = int(random.integers(sample.width - width)), int(random.integers(sample.height - height))
        image[:, y : y + height, x : x + width] = other.image[:, top:bottom, left:right]
        target = torch.tensor([[x, y, x + width, y + height]], dtype=sample.boxes.dtype)
        visible = sample.keep(_visible_fraction(sample.boxes, target[0]) > min_visible)
        pasted = replace(other, boxes=target, labels=other.labels[row, None], crowd=other.crowd[row, None])
        sample = _joined(image, [visible, pasted], sample.scale)
    return replace(sample, image=image)


def _fill(sample: Sample, random: Generator, width: int, height: int, min_visible: float) -> Sample:
    """Return a random window of the sample, the largest of that aspect ratio, resized to that size."""
    # Cropped before resizing: all of a thin image, enlarged, may not fit into memory.
    ratio = max(width / sample.width, height / sample.height)
    across, down = (
        max(1, min(side, round(target / ratio))) for side, target in ((sample.width, width), (sample.height, height))
    )
    left, top = int(random.integers(sample.width - across + 1)), int(random.integers(sample.height - down + 1))
    return sample.crop(left, top, across, down, min_visible).resize(width, height)


def _joined(image: Tensor, parts: list[Sample], scale: float) -> Sample:
    """Return an image with the objects of all parts."""
    return Sample(
        image,
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.labels for part in parts]),
        torch.cat([part.crowd for part in parts]),
        scale,
    )


def _visible_fraction(boxes: Tensor, cover: Tensor) -> Tensor:
    """Return the fraction of each box `[T, 4]` outside a cover `[4]`, all xyxy: `[T]`."""
    sides = (torch.minimum(boxes[:, 2:], cover[2:]) - torch.maximum(boxes[:, :2], cover[:2])).clamp(min=0)
    return 1 - sides.prod(-1) / (boxes[:, 2:] - boxes[:, :2]).prod(-1)
