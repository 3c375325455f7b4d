"""Images that are alike are found, however they were saved; others aren't, plain ones included."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from detr_ft.data import duplicates
from detr_ft.data.duplicates import MAX_DISTANCE, fingerprint, nearest, similar_groups


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Soft patches of colour, as photographs have them at a distance."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def apart(one: Image.Image, other: Image.Image) -> float:
    return float(nearest([fingerprint(one)], [fingerprint(other)])[0][0])


@pytest.mark.parametrize("seed", range(5))
def test_a_smaller_jpeg_copy_is_similar_and_another_scene_is_not(seed: int) -> None:
    image = scene(seed)
    assert apart(image, image) == 0
    assert apart(image, saved(image.resize((192, 144)), quality=40)) <= MAX_DISTANCE
    assert apart(image, scene(seed + 100)) > 2 * MAX_DISTANCE


def test_plain_images_are_alike_only_where_their_colours_are_the_same() -> None:
    red, blue = Image.new("RGB", (64, 48), "red"), Image.new("RGB", (64, 48), "blue")
    assert apart(red, Image.new("RGB", (640, 480), "red")) == 0
    assert apart(red, blue) > 2 * MAX_DISTANCE
    assert apart(red, scene(0)) > 2 * MAX_DISTANCE


def test_small_things_on_one_plain_ground_are_not_alike() -> None:
    prints = []
    for place in range(8):
        image = Image.new("RGB", (320, 320), "white")
        image.paste((20 * place, 60, 200), (40 * place, 30 * place, 40 * place + 70, 30 * place + 90))
        prints.append(fingerprint(image))
    assert similar_groups(prints) == []


def test_groups_are_those_of_all_pairs_whatever_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    signs = random.integers(0, 3, (60, 384))
    signs[1::4] = signs[0::4]
    signs[2:30:4, :30] = 0
    signs[2:30:4, 30:] = signs[0:28:4, 30:]
    prints = [np.packbits(np.concatenate([one == 1, one == 2])).tobytes() for one in signs]
    whole = similar_groups(prints)
    assert whole[0] == [0, 1, 2]
    assert all(len(group) == (3 if group[0] < 28 else 2) for group in whole)
    assert [group[0] for group in whole] == list(range(0, 60, 4))
    monkeypatch.setattr(duplicates, "_IMAGES_PER_BLOCK", 7)
    assert similar_groups(prints) == whole
    assert nearest(prints[1:9], prints[:1] + prints[4:5])[1].tolist()[3] == 1
    assert similar_groups([]) == []
