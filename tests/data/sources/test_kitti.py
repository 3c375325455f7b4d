"""KITTI's object detection labels of 2012, and those that Datumaro 1.5.2 writes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]

# The rows of a published label file, with boxes in an image of 40x30.
CAR = "Car 0.00 0 1.85 1.00 2.00 9.00 12.00 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n"
TRUNCATED = "Pedestrian 0.76 3 -0.20 10.25 3.00 30.25 15.00 1.89 0.48 1.20 1.84 1.47 8.41 0.01\n"
IGNORED = "DontCare -1 -1 -10 5.00 6.00 7.00 8.00 -1 -1 -1 -1000 -1000 -1000 -10\n"


@pytest.fixture
def kitti(tmp_path: Path, write_image: Write) -> Path:
    for number, text in enumerate((CAR + TRUNCATED + IGNORED, IGNORED, "")):
        write_image(tmp_path / "training" / "image_2" / f"{number:06}.png", seed=number)
        label = tmp_path / "training" / "label_2" / f"{number:06}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text(text)
    for number in (0, 1):
        write_image(tmp_path / "testing" / "image_2" / f"{number:06}.png", seed=10 + number)
    return tmp_path


def test_boxes_flags_and_regions_that_are_no_objects(kitti: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        data = load_data(str(kitti))
    assert list(data) == ["train"]
    rows = data["train"]
    assert [Path(row["image"]["path"]).relative_to(kitti).as_posix() for row in rows] == [
        f"training/image_2/{number:06}.png" for number in range(3)
    ]
    assert class_names(rows) == ["Car", "Pedestrian"]
    assert rows[0]["objects"]["bbox"] == [[1, 2, 8, 10], [10.25, 3, 20, 12]]
    assert rows[0]["objects"]["truncated"] == [False, True]
    assert [row["objects"]["bbox"] for row in rows][1:] == [[], []]
    assert "2 regions of the type DontCare are left out" in caplog.text
    for spec in (str(kitti / "training"), f"kitti:{kitti / 'training' / 'label_2'}"):
        assert [row["image"]["path"] for row in load_data(spec)["train"]] == [row["image"]["path"] for row in rows]


def test_lists_are_the_splits(kitti: Path, caplog: pytest.LogCaptureFixture) -> None:
    (kitti / "ImageSets").mkdir()
    lists = {
        "train": "000000\n",
        "val": "training/image_2/000001.png\n",
        "trainval": "000000\n000001\n",
        "test": "000009\n",
    }
    for name, text in lists.items():
        (kitti / "ImageSets" / f"{name}.txt").write_text(text)
    data = load_source_data(str(kitti))
    assert {split: len(rows) for split, rows in data.splits.items()} == {"train": 1, "validation": 1}
    (problem,) = data.problems
    assert (problem.kind, problem.count) == ("lost annotation", 1)
    assert "000002.txt: 1 label files are in no list" in problem.message
    assert "1 of its images have no labels" in caplog.text
    assert [path.name for path in data.annotated] == ["000002.png"]


def test_folders_are_the_splits(tmp_path: Path, write_image: Write) -> None:
    for seed, split in enumerate(("train", "val")):
        write_image(tmp_path / split / "images" / "ä.jpg", seed=seed)
        (tmp_path / split / "labels").mkdir()
        (tmp_path / split / "labels" / "ä.txt").write_text(CAR.replace("Car", "délivery van"))
    data = load_data(str(tmp_path))
    assert {split: rows[0]["image"]["path"] for split, rows in data.items()} == {
        "train": str(tmp_path / "train" / "images" / "ä.jpg"),
        "validation": str(tmp_path / "val" / "images" / "ä.jpg"),
    }
    assert class_names(data["train"]) == ["délivery van"]  # a class may have spaces


def test_one_folder_of_test_labels_is_enough_for_splits(tmp_path: Path, write_image: Write) -> None:
    for seed, folder in enumerate(("day", "test")):
        write_image(tmp_path / folder / f"image_2/{seed}.png", seed=seed)
        (tmp_path / folder / "label_2").mkdir()
        (tmp_path / folder / f"label_2/{seed}.txt").write_text(CAR)
    assert {split: len(rows) for split, rows in load_data(str(tmp_path)).items()} == {"train": 1, "test": 1}


def test_the_labels_of_datumaro(tmp_path: Path, write_image: Write) -> None:
    """Copied from its exporter's file: a row has -1 for what is unknown, and a score."""
    for seed, split in enumerate(("train", "val")):
        write_image(tmp_path / split / "image_2" / "a ä.png", seed=seed)
        (tmp_path / split / "label_2").mkdir()
        (tmp_path / split / "label_2" / "a ä.txt").write_text(
            "dog 1.0 0 -1 1.0 2.0 9.0 12.0 -1 -1 -1 -1 -1 -1 -1 1.0\nKäse 0.0 0 -1 10.0 3.0 30.0 15.0 -1 -1 -1 -1 -1 -1 -1 1.0\n"
        )
    (tmp_path / "label_colors.txt").write_text(" dog\n Käse\n")
    data = load_data(str(tmp_path))
    assert set(data) == {"train", "validation"}
    assert class_names(data["train"]) == ["Käse", "dog"]
    assert data["train"][0]["objects"]["bbox"] == [[1, 2, 8, 10], [10, 3, 20, 12]]
    assert data["train"][0]["objects"]["truncated"] == [True, False]


def test_a_score_is_no_part_of_a_box(kitti: Path) -> None:
    label = kitti / "training" / "label_2" / "000000.txt"
    label.write_text(CAR.replace("1.57\n", "1.57 0.98\n"))
    assert load_data(str(kitti))["train"][0]["objects"]["bbox"] == [[1, 2, 8, 10]]


def test_unreadable_rows_are_problems_of_their_image(kitti: Path) -> None:
    label = kitti / "training" / "label_2" / "000001.txt"
    label.write_bytes((CAR + "\nCar 0.00 0\n" + CAR.replace("9.00", "x") + CAR.removeprefix("Car")).encode())
    (kitti / "training" / "label_2" / "000002.txt").write_bytes(b"Car\xff 0")
    with pytest.raises(DefectiveDataError) as caught:
        load_data(str(kitti))
    data = caught.value.data
    assert [(problem.message.partition(": ")[0], problem.row) for problem in data.problems[:3]] == [
        (f"{label}, line {number}", 1) for number in (3, 4, 5)
    ]
    assert data.problems[3].row == 2
    assert data.splits["train"][1]["objects"]["bbox"] == [[1, 2, 8, 10]]


def test_missing_images_and_images_elsewhere(kitti: Path) -> None:
    (kitti / "training" / "image_2" / "000000.png").unlink()
    row = load_data(str(kitti))["train"][0]
    assert row["image"]["path"] == str(kitti / "training" / "image_2" / "000000.png")
    assert (row["width"], row["objects"]["bbox"]) == (0, [[1, 2, 8, 10], [10.25, 3, 20, 12]])
    (kitti / "training" / "image_2").rename(kitti / "photos")
    rows = load_data(str(kitti / "training"), images=kitti / "photos")["train"]
    assert rows[1]["image"]["path"] == str(kitti / "photos" / "000001.png")
    (kitti / "empty").mkdir()
    with pytest.raises(InputError, match="none of its 3 images is below"):
        load_data(str(kitti / "training"), images=kitti / "empty")


def test_folders_that_are_none_of_kitti(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(InputError, match="no label files of KITTI"):
        load_data(f"kitti:{tmp_path}")
    with pytest.raises(InputError, match="no label files of KITTI"):
        load_data(f"kitti:{tmp_path / 'a.txt'}")
