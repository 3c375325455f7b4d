from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from detr_ft.data.export import write_coco
from detr_ft.data.generated.generate import CLASSES, generate
from detr_ft.data.generated.scene import MAX_SIDE_FRACTION, MIN_SIDE_FRACTION, render_scene
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError

EDGE = 128


@pytest.fixture(scope="module")
def scenes() -> list[dict[str, object]]:
    return list(generate("shapes?train=400&validation=0&seed=7")["train"])


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    first, again, other = (generate(f"workshop?train=5&validation=2&seed={seed}") for seed in (3, 3, 4))
    assert first["train"].to_list() == again["train"].to_list()
    assert first["validation"].to_list() == again["validation"].to_list()
    assert first["train"].to_list() != other["train"].to_list()


def test_a_split_does_not_change_when_it_or_another_grows() -> None:
    small, large = generate("shapes?train=3&validation=2"), generate("shapes?train=6&validation=4")
    assert small["train"].to_list() == large["train"].to_list()[:3]
    assert small["validation"].to_list() == large["validation"].to_list()[:2]
    assert not {row["image"]["bytes"] for row in small["train"]} & {
        row["image"]["bytes"] for row in small["validation"]
    }


def test_boxes_are_tight_around_what_is_visible() -> None:
    """On a ground of one colour, with flat objects, the pixels that differ from it are those of the boxes."""
    random = np.random.default_rng(0)
    scene = render_scene(random, ["square"], EDGE, 3)
    height, width = scene.pixels.shape[:2]
    for (x, y, w, h), area in zip(scene.boxes, scene.areas, strict=True):
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
        assert 0 < area <= w * h


def test_sizes_span_six_to_sixty_percent_of_the_side(scenes: list[dict[str, object]]) -> None:
    sides = [max(box[2:]) / EDGE for row in scenes for box in row["objects"]["bbox"]]
    assert min(sides) >= MIN_SIDE_FRACTION
    assert max(sides) <= MAX_SIDE_FRACTION
    assert min(sides) < 0.08
    assert max(sides) > 0.55


def test_scenes_are_empty_crowded_occluded_and_of_several_classes(scenes: list[dict[str, object]]) -> None:
    counts = [len(row["objects"]["bbox"]) for row in scenes]
    assert 0.06 < counts.count(0) / len(counts) < 0.15
    assert sum(count >= 7 for count in counts) > 0.05 * len(counts)
    assert np.mean([len(set(row["objects"]["category"])) > 1 for row in scenes]) > 0.4
    assert {category for row in scenes for category in row["objects"]["category"]} == set(range(8))
    overlapping = sum(_overlaps(row["objects"]["bbox"]) for row in scenes)
    assert overlapping > 0.2 * len(scenes)


def _overlaps(boxes: list[list[float]]) -> bool:
    return any(
        a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
        for index, a in enumerate(boxes)
        for b in boxes[:index]
    )


def test_images_have_several_shapes_and_the_stated_size(scenes: list[dict[str, object]]) -> None:
    sizes = set()
    for row in scenes[:60]:
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert image.size == (row["width"], row["height"])
        assert max(image.size) == EDGE
        sizes.add(image.size)
    assert len(sizes) >= 4


def test_pretraining_and_quickstart_share_no_class() -> None:
    assert not set(CLASSES["shapes"]) & set(CLASSES["workshop"])


def test_written_out_as_coco_it_reads_back_the_same(tmp_path: object) -> None:
    data = generate("workshop?train=20&validation=5")
    write_coco(data, tmp_path / "out")  # type: ignore[operator]
    again = load_data(f"coco:{tmp_path}/out")
    assert class_names(again["train"]) == class_names(data["train"])
    for split in data:
        assert [row["objects"]["bbox"] for row in again[split]] == [row["objects"]["bbox"] for row in data[split]]
        assert [row["objects"]["category"] for row in again[split]] == [
            row["objects"]["category"] for row in data[split]
        ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("shpaes", ["shpaes", "shapes, workshop"]),
        ("shapes?sed=1&train=x", ["unknown option 'sed'", "train must be a whole number"]),
        ("shapes?train=0&validation=0", ["no split has an image"]),
        ("shapes?edge=10", ["edge must be at least 64"]),
        ("shapes?max_objects=0", ["max_objects"]),
    ],
)
def test_every_unknown_name_and_option_is_reported(spec: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        generate(spec)
    for word in words:
        assert word in str(caught.value)
