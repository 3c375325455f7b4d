"""A faulty augmentation is found before a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from numpy.random import Generator

from detr_ft.data.augment import NAMED
from detr_ft.data.sample import Sample
from detr_ft.data.trial import try_augmentation


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


def test_what_fails_is_told_with_its_place() -> None:
    assert "ZeroDivisionError" in str(try_augmentation(Rare()))
    told = try_augmentation(Crash())
    assert told is not None
    assert told.startswith("Crash() failed: ValueError: 99 is not in list (")
    assert "test_trial.py, line " in told
    assert try_augmentation(Forgetful()) == "the augmentation Forgetful() returned a NoneType, not a Sample"
