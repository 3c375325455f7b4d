"""Coverage of the intervals, and differences between unequal models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from support.synthetic_detections import NAMES, equal_models, model, truth, with_wrong_classes

from detr_ft.evaluation.bootstrap import differences, intervals
from detr_ft.evaluation.coco import metrics_of_matches
from detr_ft.evaluation.detection_matching import DetectionMatches, match_detections


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.0, 1.5])
def test_an_interval_covers_what_sets_of_that_size_give_on_average(power: float) -> None:
    """Classes of similar and of very different frequency, some with a handful of objects."""
    rng, names = np.random.default_rng(0), [str(number) for number in range(10)]
    shares = np.arange(1.0, 11.0) ** -power
    average = np.mean([_figure(_one(rng, 60, names, shares)) for _ in range(100)])
    detections = [intervals(_one(rng, 60, names, shares), sets=200)["map"] for _ in range(30)]
    assert sum(one is not None and one.low <= average <= one.high for one in detections) >= 26


def test_few_objects_read_too_high_on_average() -> None:
    """A bias that intervals over the same images cannot show, so the report mentions it."""
    rng, names = np.random.default_rng(0), [str(number) for number in range(10)]
    few, many = (
        np.mean([_figure(_one(rng, images, names)) for _ in range(sets)]) for images, sets in ((20, 60), (1500, 1))
    )
    assert few > many + 0.02


def _figure(matches: DetectionMatches) -> float:
    return metrics_of_matches(matches)["map"] or 0.0


def _one(
    rng: np.random.Generator, images: int, names: list[str] = NAMES, shares: NDArray[np.float64] | None = None
) -> DetectionMatches:
    objects, hard = truth(rng, images)
    chances = np.ones(len(names)) if shares is None else shares
    label = rng.choice(len(names), len(objects.image), p=chances / chances.sum())
    objects = replace(objects, label=label)
    return match_detections(names, images, objects, model(rng, objects, hard))


def test_the_same_seed_gives_the_same_interval() -> None:
    one, _ = equal_models(0, 30)
    assert intervals(one, sets=50, seed=1) == intervals(one, sets=50, seed=1) != intervals(one, sets=50, seed=2)


@pytest.mark.slow
def test_models_that_are_equally_good_do_not_differ() -> None:
    flagged = 0
    for seed in range(25):
        detections = differences(*equal_models(seed, 40), sets=200, seed=seed)["map"]
        assert detections is not None
        assert detections.interval.low < detections.value < detections.interval.high
        flagged += detections.real
    assert flagged <= 1


def test_a_model_does_not_differ_from_itself() -> None:
    one, _ = equal_models(0, 30)
    detections = differences(one, one, sets=50)
    assert all(difference is None or not difference.real for difference in detections.values())


@pytest.mark.parametrize("seed", range(3))
def test_five_percent_of_wrong_labels_are_found(seed: int) -> None:
    one, _ = equal_models(seed, 500)
    detections = differences(one, with_wrong_classes(one, 0.05, seed), sets=200)["map"]
    assert detections is not None
    assert detections.value < 0
    assert detections.real


def test_only_the_same_images_can_be_compared() -> None:
    one, _ = equal_models(0, 30)
    other, _ = equal_models(1, 30)
    with pytest.raises(ValueError, match="same images"):
        differences(one, other)
    with pytest.raises(ValueError, match="same images"):
        differences(one, replace(one, num_images=31))


def test_too_few_images_with_large_objects_have_no_interval() -> None:
    """An interval of one image's figure would be that figure: as narrow as can be, and worth nothing."""
    rng = np.random.default_rng(0)
    objects, hard = truth(rng, 40)
    detections = model(rng, objects, hard)
    for images, known in ((0, False), (1, False), (2, False), (5, True)):
        large = np.isin(objects.image, np.unique(objects.image)[:images])
        few = replace(objects, area=np.where(large, 1e5, 100.0))
        assert (intervals(match_detections(NAMES, 40, few, detections), sets=200)["map_large"] is not None) == known, (
            images
        )


@pytest.mark.parametrize(("images", "known"), [(1, False), (2, False), (3, True)])
def test_a_set_of_one_or_two_images_has_no_interval(images: int, known: bool) -> None:
    one, other = equal_models(0, images)
    assert (intervals(one, sets=50)["map"] is not None) == known
    assert (differences(one, other, sets=50)["map"] is not None) == known
