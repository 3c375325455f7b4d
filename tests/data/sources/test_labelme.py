"""LabelMe files as its versions write them, and errors in wrong ones."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.doctor import examine
from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError


def shape(label: str, kind: str, *points: list[float], group: int | None = None) -> dict[str, object]:
    return {
        "label": label,
        "points": list(points),
        "group_id": group,
        "description": "",
        "shape_type": kind,
        "flags": {},
        "mask": None,
    }


def write(file: Path, shapes: object, **changes: object) -> Path:
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{file.stem}.png",
        "imageData": None,
        "imageHeight": 30,
        "imageWidth": 40,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({**content, **changes}))
    return file


def test_group_0_is_a_group(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    parts = [shape("dog", "rectangle", [x, 1], [x + 2, 3], group=0) for x in (1, 5)]
    data = load_data(f"labelme:{write(tmp_path / 'a.json', parts)}")["train"]
    assert data[0]["objects"]["bbox"] == [[1, 1, 6, 2]]


def test_shapes_become_boxes(
    tmp_path: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "unlabelled.png")
    shapes = [
        shape("dog", "rectangle", [30.5, 20], [10, 5]),
        shape("cat ", "polygon", [1, 1], [9, 2], [4, 8]),
        shape("ball", "circle", [20, 15], [23, 19]),
        shape("dog", "polygon", [0, 0], [2, 0], [2, 2], group=1),
        shape("dog", "polygon", [8, 8], [9, 8], [9, 9], group=1),
        shape("dog", "mask", [3, 4], [7, 9]),
        shape("way", "linestrip", [0, 0], [5, 5], [9, 9]),
        shape("nose", "point", [1, 1]),
        shape("nose", "point", [2, 1]),
    ]
    write(tmp_path / "a.json", shapes)
    data = load_data(str(tmp_path))
    assert list(data) == ["train"]
    assert class_names(data["train"]) == ["ball", "cat", "dog"]
    row = data["train"][0]
    assert (row["width"], row["height"], row["image"]["path"]) == (40, 30, str(tmp_path / "a.png"))
    assert row["objects"]["bbox"] == [[10, 5, 20.5, 15], [1, 1, 8, 7], [15, 10, 10, 10], [0, 0, 9, 9], [3, 4, 4, 5]]
    assert row["objects"]["category"] == [2, 1, 0, 2, 2]
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert messages == [
        "1 image files beside those of the data have no record and are left out",
        f"{tmp_path / 'a.json'}: shape 6: a linestrip has no area",
        f"{tmp_path / 'a.json'}: shape 7: a point has no area",
        f"{tmp_path / 'a.json'}: shape 8: a point has no area",
    ]


@pytest.mark.parametrize("kind", ["rotation", "quadrilateral", "cuboid", "some new shape"])
def test_every_shape_with_an_area_gives_the_box_around_it(
    tmp_path: Path, write_image: Callable[..., Path], kind: str
) -> None:
    write_image(tmp_path / "a.png")
    write(tmp_path / "a.json", [shape("dog", kind, [10, 2], [20, 12], [14, 18], [4, 8])])
    assert load_data(str(tmp_path))["train"][0]["objects"]["bbox"] == [[4, 2, 16, 16]]


def test_points_alone_are_no_background(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for seed, stem in enumerate("ab"):
        write_image(tmp_path / f"{stem}.png", seed=seed)
    write(tmp_path / "a.json", [shape("dog", "point", [1, 1])])
    write(tmp_path / "b.json", [shape("dog", "rectangle", [1, 1], [2, 2])])
    data = load_source_data(str(tmp_path))
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 0)]


def test_splits_other_folders_and_old_files(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for split, stem in (("train", "a"), ("val", "b")):
        write_image(tmp_path / "pictures" / f"{stem}.jpg", orientation=6)
        file = write(tmp_path / split / f"{stem}.json", [], imagePath=f"..\\pictures\\{stem}.jpg")
        content = json.loads(file.read_text())
        old = {"label": "dog", "points": [[1, 2], [3, 4], [3, 9]], "line_color": None}
        file.write_text(json.dumps({key: content[key] for key in ("imagePath", "imageData")} | {"shapes": [old]}))
    data = load_data(f"labelme:{tmp_path}")
    assert {split: len(rows) for split, rows in data.items()} == {"train": 1, "validation": 1}
    row = data["validation"][0]
    assert row["image"]["path"] == str(tmp_path / "pictures" / "b.jpg")
    assert (row["width"], row["height"], row["objects"]["bbox"]) == (30, 40, [[1, 2, 2, 7]])


def test_a_moved_image_is_located_and_a_missing_one_is_read_from_the_json_file(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    moved = write_image(tmp_path / "images" / "a.png")
    write(tmp_path / "labels" / "a.json", [shape("dog", "rectangle", [1, 1], [2, 2])], imagePath="C:\\me\\a.png")
    inside = write_image(tmp_path / "b.png", seed=1)
    embedded = base64.b64encode(inside.read_bytes()).decode()
    inside.unlink()
    write(tmp_path / "labels" / "b.json", [], imageData=embedded, imageHeight=None, imageWidth=None)
    rows = load_data(f"labelme:{tmp_path}")["train"]
    assert rows[0]["image"]["path"] == str(moved)
    assert (rows[1]["width"], rows[1]["height"]) == (40, 30)
    assert rows[1]["image"]["bytes"] == base64.b64decode(embedded)
    assert {finding.level for finding in examine(load_data(f"labelme:{tmp_path}")).findings} <= {"info"}


def test_one_file_by_its_bare_path(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    file = write(tmp_path / "a.json", [shape("dog", "rectangle", [1, 1], [2, 2])])
    assert load_data(str(file))["train"][0]["objects"]["bbox"] == [[1, 1, 1, 1]]


def test_problems_are_reported_together(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for stem in "abcd":
        write_image(tmp_path / f"{stem}.png")
    shapes = [
        {"points": [[1, 1], [2, 2]]},
        shape("dog", "rectangle", [1, 1]),
        shape("dog", "polygon", [1, 1], [2, 2]),
        shape("dog", "circle", [1, 1], ["x", 2]),  # type: ignore[list-item]
        3,
    ]
    write(tmp_path / "a.json", shapes)
    write(tmp_path / "b.json", {})
    (tmp_path / "c.json").write_text("{")
    write(tmp_path / "d.json", [], imagePath="gone.png", imageData="no base64!")
    with pytest.raises(InputError) as caught:
        load_data(f"labelme:{tmp_path}")
    found = sorted(problem.removeprefix(str(tmp_path) + "/") for problem in caught.value.problems[1:])
    assert [problem[: len(start)] for problem, start in zip(found, EXPECTED, strict=True)] == EXPECTED


EXPECTED = [
    "a.json: shape 0: must have a label",
    "a.json: shape 1: a rectangle must have at least 2 points",
    "a.json: shape 2: a polygon must have at least 3 points",
    "a.json: shape 3: a circle must have at least 2 points",
    "a.json: shape 4: must have a label",
    "b.json: must have shapes, a l",
    "c.json: not valid JSON",
    "d.json: imageData must be base64",
]


def test_folders_without_labels_or_without_images(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"no LabelMe files.*shapes and imagePath"):
        load_data(f"labelme:{tmp_path}")
    write(tmp_path / "a.json", [shape("dog", "rectangle", [1, 1], [2, 2])])
    with pytest.raises(InputError, match=r"none of its 1 images is below .*, for example a\.png"):
        load_data(f"labelme:{tmp_path}")


def test_odd_flags_names_and_images(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    shape = {"label": "dog", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    content = {
        "imagePath": ".",
        "imageData": "\u00e9",
        "shapes": [{**shape, "difficult": one} for one in ("False", "so-so")],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        load_data(f"labelme:{tmp_path}")
    assert caught.value.problems[0].partition(": ")[2].startswith("shape 1: difficult must be yes (1, true)")


def test_image_ids_do_not_depend_on_the_order_of_creation(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in "cab":
        write_image(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.png", "shapes": []}))
    shape = {"label": "dog", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": [shape]}))
    for _ in range(2):
        rows = load_data(f"labelme:{tmp_path}")["train"]
        assert [(row["image_id"], Path(row["image"]["path"]).name) for row in rows] == [
            (0, "a.png"),
            (1, "b.png"),
            (2, "c.png"),
        ]


@pytest.mark.parametrize("content", [{}, {"imagePath": "b.png"}, {"imageHeight": 30, "shapes": None}, {"shapes": {}}])
def test_a_file_that_lost_its_shapes_is_a_problem_of_its_image(
    tmp_path: Path, write_image: Callable[..., Path], content: dict[str, object]
) -> None:
    for seed, name in enumerate("ab"):
        write_image(tmp_path / f"{name}.png", seed=seed)
    write(tmp_path / "a.json", [shape("dog", "rectangle", [1, 1], [9, 9])])
    (tmp_path / "b.json").write_text(json.dumps(content))
    data = load_source_data(str(tmp_path))
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [1, 0]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 1)]
    assert data.problems[0].message.startswith(f"{tmp_path / 'b.json'}: ")


def test_a_missing_image_does_not_give_its_shapes_to_one_of_its_name(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for seed, name in enumerate(("cam1/1.png", "cam1/2.png", "cam2/2.png")):
        write_image(tmp_path / name, seed=seed)
    for camera in ("cam1", "cam2"):
        for number, corner in ((1, 9), (2, 12)):
            write(tmp_path / camera / f"{number}.json", [shape("dog", "rectangle", [1, 1], [corner, corner])])
    rows = load_source_data(f"labelme:{tmp_path}").splits["train"]
    assert {row["image"]["path"]: row["width"] for row in rows} == {
        str(tmp_path / name): 40 for name in ("cam1/1.png", "cam1/2.png", "cam2/1.png", "cam2/2.png")
    }
