"""Augmentations on images with one object per color channel: the pixels show its box."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from detr_ft.data.augmentation.builtin import (
    Augmentation,
    DetrAugmentation,
    Light,
    Strong,
    mix_up,
    mosaic,
    paste,
    shift_colors,
)
from detr_ft.data.pipeline.sample import Sample

BRIGHT = 200


def coloured(width: int, height: int, boxes: list[list[int]], first: int = 0) -> Sample:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    for label, (x0, y0, x1, y1) in enumerate(boxes, start=first):
        image[label, y0:y1, x0:x1] = BRIGHT
    labels = torch.arange(first, first + len(boxes))
    return Sample(image, torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels, torch.zeros(len(boxes)) > 0)


def around(image: torch.Tensor, label: int) -> torch.Tensor:
    """The box, xyxy, around the pixels of a class's colour."""
    there = image[label] > BRIGHT / 2
    rows, columns = (np.flatnonzero(there.any(axis).numpy()) for axis in (1, 0))
    return torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=torch.float32)


def none_left() -> Sample:
    raise AssertionError("no other sample was to be drawn")


@settings(deadline=None, max_examples=40)
@given(width=st.integers(60, 200), height=st.integers(60, 200), seed=st.integers(0, 1000))
def test_a_mosaic_holds_four_images_with_their_boxes(width: int, height: int, seed: int) -> None:
    sizes = default_rng(seed).integers(60, 200, (3, 2)).tolist()
    others = iter(
        [coloured(w, h, [[w // 4, h // 4, 3 * w // 4, 3 * h // 4]][: 3 - n], n) for n, (w, h) in enumerate(sizes, 1)]
    )
    first = coloured(width, height, [[width // 4, height // 4, 3 * width // 4, 3 * height // 4]])
    made = mosaic(first, default_rng(seed), lambda: next(others), min_visible=0.2)
    assert made.image.shape == first.image.shape
    assert made.labels.tolist() == sorted(made.labels.tolist())
    assert len(made.labels) >= 1
    for box, label in zip(made.boxes, made.labels.tolist(), strict=True):
        torch.testing.assert_close(box, around(made.image, label), rtol=0, atol=3.0)  # edges blur as images grow


def test_a_mix_up_holds_both_images_and_their_objects() -> None:
    first, second = coloured(80, 60, [[10, 10, 30, 30]]), coloured(40, 30, [[20, 15, 36, 26]], first=1)
    made = mix_up(first, default_rng(0), second)
    assert made.boxes.tolist() == [[10, 10, 30, 30], [40, 30, 72, 52]]
    assert made.labels.tolist() == [0, 1]
    inside, outside = made.image[0, 12:28, 12:28].float(), made.image[0, :8, :8]
    assert 0 < inside.mean() < BRIGHT
    assert outside.max() == 0


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_a_pasted_object_has_its_box_and_covered_objects_leave(seed: int) -> None:
    first, second = coloured(90, 70, [[5, 5, 45, 40]]), coloured(60, 60, [[10, 10, 40, 35]], first=1)
    before = first.image.clone()
    made = paste(first, default_rng(seed), second, min_visible=0.4)
    assert torch.equal(first.image, before)  # the sample that it came from is whole
    assert made.labels.tolist()[-1] == 1
    torch.testing.assert_close(made.boxes[-1], around(made.image, 1))
    seen = (made.image[0] == BRIGHT).sum() / (40 * 35)
    assert (0 in made.labels) == bool(seen > 0.4)


def test_objects_too_large_to_paste_and_crowds_are_not_pasted() -> None:
    first, second = coloured(30, 30, [[5, 5, 15, 15]]), coloured(90, 90, [[0, 0, 80, 10], [20, 20, 30, 30]], first=1)
    second = Sample(second.image, second.boxes, second.labels, torch.tensor([False, True]))
    assert paste(first, default_rng(0), second, 0.4).labels.tolist() == [0]


def test_colours_shift_within_their_range_and_grey_stays_grey() -> None:
    sample = coloured(64, 64, [])
    sample.image[:, :32] = 60
    shifted = [shift_colors(sample, default_rng(seed), 0.25).image for seed in range(50)]
    means = torch.tensor([float(image[:, :32].float().mean()) for image in shifted])
    assert means.std() > 3
    assert ((means > 0.5 * 60) & (means < 1.6 * 60)).all()
    for image in shifted:
        assert (image.float().amax(0) - image.float().amin(0)).max() <= 1
    assert torch.equal(shift_colors(sample, default_rng(0), 0.0).image, sample.image)


@pytest.mark.parametrize("augment", [Light(), DetrAugmentation(), Strong()])
def test_no_box_leaves_its_image_and_none_is_empty(augment: Augmentation) -> None:
    others: Callable[[], Sample] = lambda: coloured(50, 120, [[0, 0, 20, 20]], first=2)  # noqa: E731
    for seed in range(150):
        made = augment(coloured(100, 40, [[0, 0, 30, 40], [90, 20, 100, 40]]), default_rng(seed), others)
        assert made.image.dtype == torch.uint8
        assert len(made.boxes) == len(made.labels) == len(made.crowd)
        limit = torch.tensor([made.width, made.height]).repeat(2)
        assert ((made.boxes >= 0) & (made.boxes <= limit)).all()
        assert (made.boxes[:, 2:] > made.boxes[:, :2]).all()


def test_half_of_the_images_are_flipped_and_half_are_cropped() -> None:
    for augment in (Light(jitter=0.0), DetrAugmentation(), Strong(0, 0, 0, jitter=0.0)):
        flipped = cropped = 0
        for seed in range(200):
            made = augment(coloured(100, 80, [[10, 30, 40, 50]]), default_rng(seed), none_left)
            cut = (made.width, made.height) != (100, 80)
            cropped += cut
            flipped += not cut and made.boxes.tolist() == [[60, 30, 90, 50]]
        assert 70 < cropped < 130
        assert 0.3 < flipped / (200 - cropped) < 0.7


@pytest.mark.parametrize(
    ("augment", "like"), [(Strong(1, 0, 0), "mosaic"), (Strong(0, 1, 0), "mix-up"), (Strong(0, 0, 1), "paste")]
)
def test_strong_mixes_images_with_its_probabilities(augment: Strong, like: str) -> None:
    """Half of the objects are the other image's; without mixing no other image is read."""
    calls = 0

    def another() -> Sample:
        nonlocal calls
        calls += 1
        return coloured(90, 70, [[20, 20, 60, 50]], first=1)

    seen = [augment(coloured(90, 70, [[20, 20, 60, 50]]), default_rng(seed), another) for seed in range(40)]
    assert calls == {"mosaic": 120}.get(like, 40)
    assert sum(1 in made.labels for made in seen) > 15
    augment.without_mixing()(coloured(90, 70, []), default_rng(0), none_left)


def test_the_named_strong_mixes_in_all_three_ways() -> None:
    drawn: list[int] = []
    for seed in range(300, 600):
        calls: list[int] = []

        def another(calls: list[int] = calls) -> Sample:
            calls.append(1)
            return coloured(90, 70, [], first=1)

        Strong()(coloured(90, 70, [[20, 20, 60, 50]]), default_rng(seed), another)
        drawn.append(len(calls))
    assert [drawn.count(number) / 300 for number in (0, 1, 3)] == pytest.approx([0.2, 0.4, 0.4], abs=0.08)


@pytest.mark.parametrize("kind", [Light, Strong])
def test_jitter_changes_colours_and_nothing_else(kind: type[Light] | type[Strong]) -> None:
    others: Callable[[], Sample] = lambda: coloured(50, 40, [[0, 0, 20, 20]], first=2)  # noqa: E731
    for seed in range(10):
        plain, shifted = (
            kind(jitter=jitter)(coloured(50, 40, [[5, 5, 40, 30]]), default_rng(seed), others) for jitter in (0.0, 0.4)
        )
        assert torch.equal(plain.boxes, shifted.boxes)
        assert not torch.equal(plain.image, shifted.image)


def test_blends_differ_in_their_shares() -> None:
    black, white = coloured(8, 8, []), coloured(8, 8, [])
    white.image.fill_(255)
    shares = [float(mix_up(black, default_rng(seed), white).image.float().mean() / 255) for seed in range(200)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.std(shares) == pytest.approx(0.25, abs=0.04)  # of Beta(1.5, 1.5)


def test_at_most_four_objects_are_pasted() -> None:
    other = coloured(200, 20, [[20 * place, 5, 20 * place + 8, 13] for place in range(3)])
    other = other.keep(torch.tensor([0, 1, 2, 0, 1, 2]))
    pasted = [len(paste(coloured(90, 70, []), default_rng(seed), other, 0.0).labels) for seed in range(20)]
    assert max(pasted) == 4


def test_a_thin_image_fills_its_part_of_a_mosaic_without_being_enlarged_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    resized: list[int] = []
    resize = Sample.resize

    def recorded_resize(sample: Sample, width: int, height: int) -> Sample:
        resized.append(max(sample.width * sample.height, width * height))
        return resize(sample, width, height)

    monkeypatch.setattr(Sample, "resize", recorded_resize)
    made = mosaic(coloured(200, 160, []), default_rng(0), lambda: coloured(4000, 10, []), 0.4)
    assert (made.width, made.height) == (200, 160)
    assert max(resized) <= 200 * 160


def test_the_papers_scales() -> None:
    scales = {DetrAugmentation()(coloured(50, 50, []), default_rng(seed), none_left).scale for seed in range(400)}
    assert scales == {side / 800 for side in range(480, 801, 32)}


def test_an_image_of_one_pixel_survives() -> None:
    for seed in range(40):
        for augment in (Light(), DetrAugmentation(), Strong()):
            made = augment(coloured(1, 1, [[0, 0, 1, 1]]), default_rng(seed), lambda: coloured(1, 1, []))
            assert made.width >= 1
            assert made.height >= 1
