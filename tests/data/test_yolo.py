"""YOLO data sets: where images and labels are found, rows, and what is said about wrong ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data import class_names, load_data
from detr_ft.errors import UserError


@pytest.fixture
def yolo(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two splits of images of 40x30 pixels; the first image is labelled, the second is background."""
    for split in ("train", "valid"):
        for name in ("a", "b"):
            write_image(tmp_path / split / "images" / f"{name}.png")
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "a.txt").write_text("1 0.5 0.5 0.25 0.2\n")
    (tmp_path / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [cone, cube]\n")
    return tmp_path


def test_roboflow_paths_background_images_and_pixels(yolo: Path) -> None:
    data = load_data(f"yolo:{yolo / 'data.yaml'}")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 2}
    assert class_names(data["train"]) == ["cone", "cube"]
    row = data["train"][0]
    assert (row["width"], row["height"]) == (40, 30)
    assert row["objects"]["bbox"] == [pytest.approx([15, 12, 10, 6])]
    assert row["objects"]["category"] == [1]
    assert data["train"][1]["objects"]["bbox"] == []


def test_size_is_that_of_the_upright_image(yolo: Path, write_image: Callable[..., Path]) -> None:
    write_image(yolo / "train" / "images" / "a.png", size=(40, 30), orientation=6)
    row = load_data(str(yolo))["train"][0]
    assert (row["width"], row["height"]) == (30, 40)
    assert row["objects"]["bbox"] == [pytest.approx([11.25, 16, 7.5, 8])]


def test_polygons_become_boxes(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("0 0.25 0.5 0.5 0.1 0.75 0.9\n")
    assert load_data(str(yolo))["train"][0]["objects"]["bbox"] == [pytest.approx([10, 3, 20, 24])]


def test_names_may_be_a_mapping_with_gaps(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("9 0.5 0.5 1 1\n")
    (yolo / "data.yaml").write_text("train: train/images\nnames: {9: late, 1: early}\n")
    data = load_data(str(yolo))
    assert class_names(data["train"]) == ["early", "late"]
    assert data["train"][0]["objects"]["category"] == [1]


def test_path_key_text_lists_and_lists_of_folders(yolo: Path) -> None:
    (yolo / "lists").mkdir()
    (yolo / "lists" / "val.txt").write_text("./valid/images/a.png\n")
    text = f"path: {yolo}\ntrain: [train/images, valid/images]\nval: lists/val.txt\nnames: [cone, cube]\n"
    (yolo / "lists" / "set.yaml").write_text(text)
    data = load_data(f"yolo:{yolo / 'lists' / 'set.yaml'}")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 4, "validation": 1}
    assert len(data["validation"][0]["objects"]["bbox"]) == 1


def test_defective_boxes_stay_and_an_unreadable_image_does_too(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("0 0.5 0.5 0 0\n0 9 9 1 1\n0 nan 0.5 0.1 0.1\n")
    (yolo / "valid" / "images" / "a.png").write_bytes(b"no image")
    data = load_data(str(yolo))
    assert len(data["train"][0]["objects"]["bbox"]) == 3
    assert (data["validation"][0]["width"], data["validation"][0]["height"]) == (0, 0)


def test_malformed_rows_are_collected_with_file_and_line(yolo: Path) -> None:
    (yolo / "train" / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n0 a b c d\n\n0 .5 .5 .1 .1 .9\n")
    (yolo / "valid" / "labels" / "a.txt").write_text("0.5 .5 .5 .1 .1\n")
    with pytest.raises(UserError) as caught:
        load_data(str(yolo))
    train, valid = (yolo / split / "labels" / "a.txt" for split in ("train", "valid"))
    starts = [f"{train}, line {line}: " for line in (2, 3, 5)] + [f"{valid}, line 1: class 0.5"]
    assert len(caught.value.problems) == 4
    assert all(problem.startswith(start) for problem, start in zip(caught.value.problems, starts, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("a: 1", "not a YOLO data set"),
        ("train: train/images", "names must be"),
        ("{train: train/images, names: [a, a]}", "'a' is given twice"),
        ("{train: nowhere, names: [a]}", "the images of train are not at nowhere"),
        ("{train: train/labels, names: [a]}", "not one box found"),
        ("!!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_yaml_file_that_is_wrong(yolo: Path, text: str, message: str) -> None:
    (yolo / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_data(f"yolo:{yolo}")


def test_a_stated_test_split_that_wasnt_exported_is_left_out(yolo: Path, caplog: pytest.LogCaptureFixture) -> None:
    with (yolo / "data.yaml").open("a") as file:
        file.write("test: ../test/images\n")
    assert list(load_data(str(yolo))) == ["train", "validation"]
    assert "going on without a test split" in caplog.text


def test_cones_and_cubes(real_data: Callable[[str], Path]) -> None:
    data = load_data(str(real_data("cones_yolo")))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 435, "validation": 124, "test": 63}
    names = class_names(data["train"])
    counts = Counter(names[label] for rows in data.values() for one in rows["objects"] for label in one["category"])
    assert counts == {"cone": 931, "cube": 521}
