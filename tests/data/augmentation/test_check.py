"""A faulty augmentation is found before a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from numpy.random import Generator
from torch import Tensor

from detr_ft.data.augmentation.builtin import NAMED, Augmentation, DetrAugmentation, Light, Strong, shift_colors
from detr_ft.data.augmentation.check import find_misplaced, try_augmentation
from detr_ft.data.pipeline.sample import Sample


@dataclass(frozen=True)
class Rare:
    """Fails for images without objects alone."""

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        return replace(sample, scale=1 / len(sample.boxes))


@dataclass(frozen=True)
class Crash:
    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        return sample.keep([sample.labels.tolist().index(99)])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Forgetful:
    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        sample.flip()
        return None  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["light", "detr", "strong"])
def test_the_built_in_ones_pass(name: str) -> None:
    augment = NAMED[name]
    assert augment is not None
    assert try_augmentation(augment) is None


def test_an_exception_is_reported_with_file_and_line() -> None:
    assert "ZeroDivisionError" in str(try_augmentation(Rare()))
    reported = try_augmentation(Crash())
    assert reported is not None
    assert reported.startswith("Crash() failed: ValueError: 99 is not in list (")
    assert "test_check.py, line " in reported
    assert try_augmentation(Forgetful()) == "the augmentation Forgetful() returned a NoneType, not a Sample"


@dataclass(frozen=True)
class Late:
    """Fails in the last of the epochs that are tried alone."""

    calls: list[int]

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        self.calls.append(0)
        if len(self.calls) == 4 * 24:
            raise RuntimeError("late")
        return sample


def test_several_epochs_are_tried() -> None:
    assert "RuntimeError: late" in str(try_augmentation(Late([])))


Change = Callable[[Sample, Generator], Sample]


@dataclass(frozen=True)
class OneImage:
    """An augmentation that changes one sample."""

    change: Change

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        return self.change(sample, random)


def image_alone(change: Callable[[Tensor], Tensor], share: float = 1.0) -> Change:
    return lambda sample, random: (
        replace(sample, image=change(sample.image)) if random.random() < share else replace(sample)
    )


@pytest.mark.parametrize(
    "change",
    [
        image_alone(lambda image: image.flip(-1)),
        image_alone(lambda image: image.flip(-2)),
        image_alone(lambda image: image.flip(-1), share=0.2),
        image_alone(lambda image: image.transpose(1, 2)),
        image_alone(lambda image: image.rot90(2, (1, 2))),
        image_alone(lambda image: image.repeat_interleave(2, 1).repeat_interleave(2, 2)),
        image_alone(lambda image: image.roll(20, 2)),
        lambda sample, random: replace(sample, boxes=sample.flip().boxes),
    ],
    ids=["mirrored", "upside down", "now and then", "transposed", "turned", "zoomed", "shifted", "boxes alone"],
)
def test_pixels_that_move_without_boxes_are_reported(change: Change) -> None:
    reported = find_misplaced(OneImage(change))
    assert reported is not None
    assert "moves pixels without boxes" in reported


def erase(sample: Sample, random: Generator) -> Sample:
    image, (x, y) = sample.image.clone(), random.integers(0, 60, 2)
    image[:, y : y + 36, x : x + 36] = int(random.integers(256))
    return replace(sample, image=image)


def noise(sample: Sample, random: Generator) -> Sample:
    noisy = sample.image + torch.from_numpy(random.normal(0, 30, sample.image.shape))
    return replace(sample, image=noisy.clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize(
    "change",
    [
        erase,
        noise,
        image_alone(lambda image: 255 - image),
        image_alone(lambda image: image.float().mean(0, keepdim=True).expand(3, -1, -1).to(torch.uint8)),
        lambda sample, random: shift_colors(sample, random, 0.9),
        lambda sample, random: sample.flip().crop(0, 0, 90, 90).resize(40, 70),
        lambda sample, random: sample.keep(sample.labels > 0),
    ],
    ids=["erased", "noise", "inverted", "grey", "colours", "moved well", "no box left"],
)
def test_no_false_alarm(change: Change) -> None:
    assert find_misplaced(OneImage(change)) is None


@pytest.mark.parametrize(
    "augment", [Light(min_crop=0.2, jitter=0.9), DetrAugmentation(min_crop=0.2), Strong(mosaics=0, mix_ups=1)]
)
def test_no_false_alarm_of_strong_settings(augment: Augmentation) -> None:
    assert find_misplaced(augment) is None


def test_it_is_found_before_a_run() -> None:
    reported = try_augmentation(OneImage(image_alone(lambda image: image.flip(-1))))
    assert "pixels without boxes" in str(reported)
