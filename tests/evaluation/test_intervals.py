"""Intervals cover what they are to, and tell models apart that are not alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluation.made_up_models import NAMES, model, spoiled, truth, two_alike

from detr_ft.evaluation.coco import figures_of
from detr_ft.evaluation.intervals import differences, intervals
from detr_ft.evaluation.marks import Marks, mark


def test_an_interval_covers_the_figure_of_many_more_images() -> None:
    rng = np.random.default_rng(0)
    expected = figures_of(_one(rng, 3000))["map"]
    covered = 0
    for _ in range(20):
        interval = intervals(_one(rng, 60), times=200)["map"]
        assert interval is not None
        covered += interval.low <= expected <= interval.high
    assert covered >= 17


def _one(rng: np.random.Generator, images: int) -> Marks:
    objects, hard = truth(rng, images)
    return mark(NAMES, images, objects, model(rng, objects, hard))


def test_the_same_seed_gives_the_same_interval() -> None:
    one, _ = two_alike(0, 30)
    assert intervals(one, times=50, seed=1) == intervals(one, times=50, seed=1) != intervals(one, times=50, seed=2)


def test_models_that_are_equally_good_do_not_differ() -> None:
    flagged = 0
    for seed in range(25):
        found = differences(*two_alike(seed, 40), times=200, seed=seed)["map"]
        assert found is not None
        assert found.interval.low < found.value < found.interval.high
        flagged += found.real
    assert flagged <= 1


def test_a_model_does_not_differ_from_itself() -> None:
    one, _ = two_alike(0, 30)
    found = differences(one, one, times=50)
    assert all(difference is None or not difference.real for difference in found.values())


@pytest.mark.parametrize("seed", range(3))
def test_five_percent_of_wrong_labels_are_found(seed: int) -> None:
    one, _ = two_alike(seed, 500)
    found = differences(one, spoiled(one, 0.05, seed), times=200)["map"]
    assert found is not None
    assert found.value < 0
    assert found.real


def test_only_the_same_images_can_be_compared() -> None:
    one, _ = two_alike(0, 30)
    other, _ = two_alike(1, 30)
    with pytest.raises(ValueError, match="same images"):
        differences(one, other)
    with pytest.raises(ValueError, match="same images"):
        differences(one, replace(one, num_images=31))


def test_too_few_images_with_large_objects_have_no_interval() -> None:
    """An interval of one image's figure would be that figure: as narrow as can be, and worth nothing."""
    rng = np.random.default_rng(0)
    objects, hard = truth(rng, 40)
    found = model(rng, objects, hard)
    for images, known in ((0, False), (1, False), (2, False), (5, True)):
        large = np.isin(objects.image, np.unique(objects.image)[:images])
        few = replace(objects, area=np.where(large, 1e5, 100.0))
        assert (intervals(mark(NAMES, 40, few, found), times=200)["map_large"] is not None) == known, images


@pytest.mark.parametrize(("images", "known"), [(1, False), (2, False), (3, True)])
def test_a_set_of_one_or_two_images_has_no_interval(images: int, known: bool) -> None:
    one, other = two_alike(0, images)
    assert (intervals(one, times=50)["map"] is not None) == known
    assert (differences(one, other, times=50)["map"] is not None) == known
