"""Records that name one image file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.sources.load import load_source_data
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.same_image import unite_records

Write = Callable[..., Path]

ONE, TWO = [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]


def record(path: Path, stated: str, *objects: tuple[str, list[float]], number: int = 0) -> Record:
    one = Record(path, number, 40, 30, stated=stated)
    for name, box in objects:
        one.add(box, name, annotation_id=10 * number + len(one.ids))
    return one


def united(root: Path, *records: Record) -> tuple[list[tuple[Path, list[str]]], list[str]]:
    """The path and class names of each record, and the kinds of the problems."""
    splits, problems = unite_records({"train": records}, root)
    return [(one.path, one.names) for one in splits["train"]], [problem.kind for problem in problems]


@pytest.mark.parametrize("stated", [("a.jpg", "images/a.jpg"), ("a.jpg", "a.jpg"), ("", "")])
def test_records_of_one_file_have_the_objects_of_all(tmp_path: Path, stated: tuple[str, str]) -> None:
    path = tmp_path / "images/a.jpg"
    first = record(path, stated[0], ("cat", ONE), number=1)
    second = record(path, stated[1], ("cat", ONE), ("dog", ONE), ("cat", TWO), number=2)
    second.unreadable.append("line 3: x")
    assert united(tmp_path, first, second) == ([(path, ["cat", "dog", "cat"])], ["repeated image"])
    assert (first.ids, first.boxes, first.unreadable) == ([10, 21, 22], [ONE, ONE, TWO], ["line 3: x"])


def test_an_undeclared_class_stays_undeclared(tmp_path: Path) -> None:
    first, second = record(tmp_path / "a.jpg", "a.jpg", ("cat", ONE)), record(tmp_path / "a.jpg", "a.jpg")
    second.add(TWO, "", fault="line 2: class 7 is not among the names")
    united(tmp_path, first, second)
    assert first.faults == {1: "line 2: class 7 is not among the names"}


def test_a_name_with_other_folders_is_a_missing_image(tmp_path: Path) -> None:
    path = tmp_path / "cam1/0001.jpg"
    records = [record(path, name, ("cat", ONE)) for name in ("cam2/0001.jpg", "cam1/0001.jpg")]
    assert united(tmp_path, *records) == ([(tmp_path / "cam2/0001.jpg", ["cat"]), (path, ["cat"])], [])


def test_the_most_similar_path_of_another_machine_is_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x/cam1/0001.jpg"
    records = [record(path, rf"C:\me\{name}\0001.jpg", ("cat", ONE)) for name in ("cam2", "cam1")]
    (other, _), (same, _) = united(tmp_path, *records)[0]
    assert (other, same) == (tmp_path / "C:/me/cam2/0001.jpg", path)


def test_names_that_fit_a_file_equally_badly_are_both_missing(tmp_path: Path) -> None:
    path = tmp_path / "photos/0001.jpg"
    records = [record(path, name, ("cat", ONE)) for name in ("cam2/0001.jpg", "cam1/0001.jpg")]
    paths = [one for one, _ in united(tmp_path, *records)[0]]
    assert paths == [tmp_path / "cam2/0001.jpg", tmp_path / "cam1/0001.jpg"]


def test_links_to_one_file_are_one_image(tmp_path: Path) -> None:
    (tmp_path / "batch1").mkdir()
    (tmp_path / "batch1/a.jpg").touch()
    (tmp_path / "latest").symlink_to("batch1", target_is_directory=True)
    (tmp_path / "b.jpg").symlink_to("batch1/a.jpg")
    paths = [tmp_path / name for name in ("batch1/a.jpg", "latest/a.jpg", "b.jpg")]
    assert united(tmp_path, *[record(path, "", ("cat", ONE)) for path in paths])[0] == [(paths[0], ["cat"])]


def test_other_files_and_splits_stay_apart(tmp_path: Path) -> None:
    splits = {name: [record(tmp_path / "a.jpg", "a.jpg")] for name in ("train", "validation")}
    splits["train"].append(record(tmp_path / "b.jpg", "b.jpg"))
    assert unite_records(splits, tmp_path) == (splits, [])


def write_rows(folder: Path, source: str, *rows: tuple[str, list[float]]) -> str:
    """A file with a box for each image name, in which every name is an image of its own."""
    if source == "csv":
        lines = [f"{name},cat,{','.join(map(str, box))}" for name, box in rows]
        (folder / "train.csv").write_text("\n".join(["image,label,x,y,w,h", *lines]) + "\n")
    else:
        content = {
            "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, (name, _) in enumerate(rows)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": box, "iscrowd": 0} for i, (_, box) in enumerate(rows)
            ],
            "categories": [{"id": 1, "name": "cat"}],
        }
        (folder / "a.json").write_text(json.dumps(content))
    return f"{source}:{folder}"


@pytest.mark.parametrize("source", ["coco", "csv"])
def test_a_data_set_has_one_image_for_each_file(tmp_path: Path, write_image: Write, source: str) -> None:
    write_image(tmp_path / "images/1.jpg")
    data = load_source_data(write_rows(tmp_path, source, ("1.jpg", ONE), ("images/1.jpg", TWO)))
    assert data.splits["train"]["objects"][0]["bbox"] == [ONE, TWO]
    assert [(one.kind, len(data.splits["train"])) for one in data.problems] == [("repeated image", 1)]


@pytest.mark.parametrize("source", ["coco", "csv"])
def test_a_missing_image_does_not_give_its_objects_to_another(tmp_path: Path, write_image: Write, source: str) -> None:
    write_image(tmp_path / "cam1/1.jpg")
    data = load_source_data(write_rows(tmp_path, source, ("cam2/1.jpg", ONE), ("cam1/1.jpg", TWO))).splits["train"]
    boxes = {row["image"]["path"]: row["objects"]["bbox"] for row in data}
    assert boxes == {str(tmp_path / "cam2/1.jpg"): [ONE], str(tmp_path / "cam1/1.jpg"): [TWO]}
