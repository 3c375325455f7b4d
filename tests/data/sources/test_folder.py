"""Image folders with a metadata.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names, detection_objects
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError


@pytest.fixture
def write_folder(write_image: Callable[..., Path]) -> Callable[..., Path]:
    def write(folder: Path, *rows: object) -> Path:
        write_image(folder / "a.png", size=(40, 30), orientation=6)
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return write


def test_names_sizes_and_options_are_read(tmp_path: Path, write_folder: Callable[..., Path]) -> None:
    objects = {"bbox": [[1, 2, 3, 4], [0, 0, 1, 1]], "categories": ["dog", "cat"], "area": [5, 6], "iscrowd": [0, 1]}
    write_folder(
        tmp_path,
        {"file_name": "a.png", "objects": objects, "image_id": 9},
        {"file_name": "gone.png", "width": 8, "height": 6, "objects": None},
    )
    rows = load_data(str(tmp_path))["train"]
    assert class_names(rows) == ["cat", "dog"]
    assert rows[0] == {
        "image": {"path": str(tmp_path / "a.png"), "bytes": None},
        "image_id": 9,
        "width": 30,
        "height": 40,
        "objects": detection_objects(
            [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 1.0, 1.0]], [1, 0], area=[5.0, 6.0], iscrowd=[False, True]
        ),
    }
    assert (rows[1]["width"], rows[1]["objects"]["bbox"]) == (8, [])


def test_splits_have_the_same_classes_and_numbers_are_sorted_by_value(
    tmp_path: Path, write_folder: Callable[..., Path]
) -> None:
    for split, labels in {"train": [10, 2], "val": [3]}.items():
        objects = {"bbox": [[0, 0, 1, 1]] * len(labels), "category": labels}
        write_folder(tmp_path / split, {"file_name": "a.png", "objects": objects})
    data = load_data(f"folder:{tmp_path}")
    assert list(data) == ["train", "validation"]
    assert class_names(data["validation"]) == ["2", "3", "10"]
    assert data["train"][0]["objects"]["category"] == [2, 0]


def test_problems_are_reported_together_with_file_and_line(tmp_path: Path, write_folder: Callable[..., Path]) -> None:
    write_folder(
        tmp_path,
        [],
        {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": []}},
        {"file_name": "b.png", "objects": {"bbox": [[1, 2, 3]], "category": ["x"]}},
        {"file_name": "c.png", "objects": [1]},
    )
    with (tmp_path / "metadata.jsonl").open("a") as file:
        file.write("{\n")
    with pytest.raises(InputError) as caught:
        load_data(f"folder:{tmp_path}")
    reason, *problems = caught.value.problems
    assert "no classes" in reason
    assert sorted(problem.split("metadata.jsonl, line ")[1][0] for problem in problems) == ["1", "2", "3", "4", "5"]


def test_an_image_id_that_occurs_twice_is_replaced(tmp_path: Path, write_folder: Callable[..., Path]) -> None:
    row = {"file_name": "a.png", "image_id": 3, "objects": {"bbox": [[0, 0, 1, 1]], "category": [0]}}
    write_folder(tmp_path, row, row | {"file_name": "b.png"})
    data = load_source_data(f"folder:{tmp_path}")
    assert data.splits["train"]["image_id"][:] == [3, 4]
    assert [(one.kind, "line 2: image id 3" in one.message) for one in data.problems] == [("repeated id", True)]


def test_only_an_end_of_line_ends_a_line(tmp_path: Path, write_folder: Callable[..., Path]) -> None:
    write_folder(tmp_path)
    row = {"file_name": "a.png", "objects": {"bbox": [[0, 0, 1, 1]], "category": ["a\u2028b\x85c"]}}
    (tmp_path / "metadata.jsonl").write_bytes(json.dumps(row, ensure_ascii=False).encode() + b"\r\n\r\n")
    assert class_names(load_data(str(tmp_path))["train"]) == ["a\u2028b\x85c"]


@pytest.mark.parametrize(
    ("row", "is_read"),
    [
        ({"objects": None}, True),
        ({"objects": {}}, True),
        ({"objects": []}, True),
        ({"objects": {"bbox": [], "category": []}}, True),
        ({"bbox": None, "category": None}, True),
        ({}, False),
        ({"category": []}, False),
        ({"objects": {"box": [[1, 2, 3, 4]], "class": []}}, False),
        ({"objects": "none"}, False),
    ],
)
def test_a_row_that_lost_its_objects_is_a_problem_of_its_image(
    tmp_path: Path, write_folder: Callable[..., Path], row: dict[str, object], is_read: bool
) -> None:
    labeled = {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": ["dog"]}}
    data = load_source_data(f"folder:{write_folder(tmp_path, labeled, {'file_name': 'b.png', **row})}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [1, 0]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 1)] * (not is_read)
