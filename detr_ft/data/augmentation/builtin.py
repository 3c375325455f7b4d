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

from detr_ft.data.augmentation.mixing import mix_up, mosaic, paste
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
        return shift_colours(sample, random, self.jitter) if self.jitter else sample


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
        return shift_colours(sample, random, self.jitter)

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


def shift_colours(sample: Sample, random: Generator, jitter: float) -> Sample:
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
