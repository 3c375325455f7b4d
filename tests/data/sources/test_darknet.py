"""Darknet as CVAT 2 exports it ("YOLO 1.1", by Datumaro), in Roboflow's layout ("YOLO Darknet"), and without obj.data."""

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


def write(folder: Path, **files: str) -> None:
    """Write files whose names have "__" for a slash and "_DOT_" for a dot."""
    for name, text in files.items():
        file = folder / name.replace("__", "/").replace("_DOT_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


@pytest.fixture
def cvat(tmp_path: Path, write_image: Write) -> Path:
    """The export of a task with the subsets Train and Validation; b.jpg of each has no objects."""
    for subset in ("train", "valid"):
        for seed, name in enumerate(("a.jpg", "b.jpg")):
            write_image(tmp_path / f"obj_{subset}_data" / name, seed=seed + 10 * (subset == "valid"))
    write(
        tmp_path,
        obj_DOT_data="classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n",
        obj_DOT_names="dog\nKäse\n",
        train_DOT_txt="data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n",
        valid_DOT_txt="data/obj_valid_data/a.jpg\ndata/obj_valid_data/b.jpg\n",
        obj_train_data__a_DOT_txt="0 0.500000 0.500000 0.500000 0.400000\n1 0.250000 0.200000 0.100000 0.200000\n",
        obj_train_data__b_DOT_txt="",
        obj_valid_data__a_DOT_txt="1 0.500000 0.500000 1.000000 1.000000\n",
        obj_valid_data__b_DOT_txt="",
    )
    return tmp_path


def test_lists_are_the_splits_and_their_paths_start_above_the_folder(cvat: Path) -> None:
    for spec in (str(cvat), f"darknet:{cvat / 'obj.data'}", f"yolo:{cvat}"):
        data = load_data(spec)
        assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 2}
        assert class_names(data["train"]) == ["dog", "Käse"]
        row = data["train"][0]
        assert row["image"]["path"] == str(cvat / "obj_train_data" / "a.jpg")
        assert row["objects"]["bbox"] == [pytest.approx([10, 9, 20, 12]), pytest.approx([8, 3, 4, 6])]
        assert row["objects"]["category"] == [0, 1]
        assert data["validation"][0]["image"]["path"] == str(cvat / "obj_valid_data" / "a.jpg")
        assert data["validation"][0]["objects"]["bbox"] == [pytest.approx([0, 0, 40, 30])]
        assert data["validation"][1]["objects"]["bbox"] == []


def test_a_subset_of_the_lists_is_a_warning_and_its_labels_are_lost(
    cvat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (cvat / "train.txt").write_text("data/obj_train_data/b.jpg\ndata/obj_train_data/b.jpg\n")
    data = load_source_data(str(cvat))
    assert [Path(row["image"]["path"]).name for row in data.splits["train"]] == ["b.jpg"]
    assert "1 images are in no list" in caplog.text
    assert "1 duplicates in the list" in caplog.text
    (problem,) = data.problems
    assert (problem.kind, problem.count) == ("lost annotation", 1)
    assert str(cvat / "obj_train_data" / "a.txt") in problem.message


def test_a_missing_image_stays_in_its_split(cvat: Path) -> None:
    (cvat / "obj_train_data" / "a.jpg").unlink()
    rows = load_source_data(str(cvat)).splits["train"]
    # The image of the same name in obj_valid_data is another one.
    assert rows[0]["image"]["path"] == str(cvat / "obj_train_data" / "a.jpg")
    assert (rows[0]["width"], rows[0]["height"]) == (0, 0)
    assert len(rows[0]["objects"]["bbox"]) == 2


def test_images_elsewhere(cvat: Path, tmp_path: Path) -> None:
    (cvat / "elsewhere").mkdir()
    for subset in ("obj_train_data", "obj_valid_data"):
        for name in ("a.jpg", "b.jpg"):
            (cvat / "elsewhere" / subset).mkdir(exist_ok=True)
            (cvat / subset / name).rename(cvat / "elsewhere" / subset / name)
    with pytest.raises(InputError, match="none of its 4 images is below"):
        load_data(f"darknet:{cvat / 'obj_train_data'}/../obj.data", images=cvat / "obj_train_data")
    rows = load_data(str(cvat), images=cvat / "elsewhere")["train"]
    assert rows[0]["image"]["path"] == str(cvat / "elsewhere" / "obj_train_data" / "a.jpg")
    assert len(rows[0]["objects"]["bbox"]) == 2


def test_a_list_of_another_machine(cvat: Path) -> None:
    (cvat / "train.txt").write_text("/content/darknet/data/obj_train_data/a.jpg\nC:\\x\\obj_train_data\\b.jpg\n")
    rows = load_data(str(cvat))["train"]
    assert [row["image"]["path"] for row in rows] == [
        str(cvat / "obj_train_data" / name) for name in ("a.jpg", "b.jpg")
    ]


def test_the_same_list_for_training_and_validation_is_training(cvat: Path, caplog: pytest.LogCaptureFixture) -> None:
    (cvat / "obj.data").write_text("classes=2\ntrain=data/train.txt\nvalid=data/train.txt\nnames=data/obj.names\n")
    assert list(load_source_data(str(cvat)).splits) == ["train"]
    assert "valid has the same list" in caplog.text


def test_without_obj_data_lists_are_recognized_by_their_names(cvat: Path) -> None:
    (cvat / "obj.data").unlink()
    assert set(load_data(f"{cvat}")) == {"train", "validation"}
    (cvat / "train.txt").unlink()
    (cvat / "valid.txt").unlink()
    # Folders of images that are not named after a split are one split.
    assert {split: len(rows) for split, rows in load_data(str(cvat)).items()} == {"train": 4}


def test_roboflow_has_names_and_images_in_a_folder_for_each_split(tmp_path: Path, write_image: Write) -> None:
    for seed, split in enumerate(("train", "valid", "test")):
        write_image(tmp_path / split / "ä_jpg.rf.0123.jpg", seed=seed)
        write(tmp_path / split, _darknet_DOT_labels="cat\ndog\n")
        (tmp_path / split / "ä_jpg.rf.0123.txt").write_text(f"{seed % 2} 0.5 0.5 0.5 0.5")
    data = load_data(str(tmp_path))
    assert {split: rows[0]["objects"]["category"] for split, rows in data.items()} == {
        "train": [0], "validation": [1], "test": [0],
    }  # fmt: skip
    write(tmp_path / "test", _darknet_DOT_labels="dog\ncat\n")
    with pytest.raises(InputError, match="has other classes than"):
        load_data(str(tmp_path))


def test_unreadable_rows_are_problems_of_their_image(cvat: Path) -> None:
    (cvat / "obj_train_data" / "a.txt").write_text(
        "0 0.5 0.5 0.5 0.4\n0 0.5 0.5\nx 0.5 0.5 0.1 0.1\n7 0.5 0.5 0.1 0.1\n"
    )
    with pytest.raises(DefectiveDataError) as caught:
        load_data(str(cvat))
    data = caught.value.data
    where = cvat / "obj_train_data" / "a.txt"
    assert [problem.message.partition(": ")[0] for problem in data.problems] == [
        f"{where}, line {number}" for number in (2, 3, 4)
    ]
    assert {(problem.split, problem.row) for problem in data.problems} == {("train", 0)}
    assert data.problems[-1].kind == "unknown class"
    assert len(data.splits["train"][0]["objects"]["bbox"]) == 2


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("obj.names", "dog\n\ncat\n", "obj.names, line 2: must be the name of a class"),
        ("obj.names", "dog\ndog\n", "'dog' occurs twice"),
        ("obj.names", "", "must have the name of a class in each line"),
        ("obj.data", "names = data/obj.names\n", "must have train = FILE"),
        ("obj.data", "train = x.txt\nnames = data/obj.names\n", "the list of train images is not at x.txt"),
        ("train.txt", "\n", "of its 2 images|no images"),
    ],
)
def test_files_that_are_no_data_set(cvat: Path, file: str, text: str, message: str) -> None:
    (cvat / file).write_text(text)
    if file == "train.txt":
        assert list(load_source_data(str(cvat)).splits) == ["validation"]
        return
    with pytest.raises(InputError, match=message):
        load_data(f"darknet:{cvat}")


def test_a_data_yaml_beside_obj_names_is_yolo(cvat: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(cvat, data_DOT_yaml="train: obj_train_data\nval: obj_valid_data\nnames: [dog, Käse]\n")
    with caplog.at_level(logging.INFO):
        assert set(load_data(str(cvat))) == {"train", "validation"}
    assert "recognized as yolo:" in caplog.text


def test_pixels_instead_of_fractions(cvat: Path) -> None:
    (cvat / "obj_train_data" / "a.txt").write_text("0 20 15 10 10\n1 20 15 10 10\n")
    with pytest.raises(InputError, match="must be fractions of the image"):
        load_data(str(cvat))
