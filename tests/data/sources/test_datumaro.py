"""Datumaro's JSON as Datumaro 1.5.2 writes it, and with the rotation and skeletons of CVAT 2 ("Datumaro 1.0")."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faster_coco_eval import mask as coco_mask

from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]


def rle(*, empty: bool = False) -> dict[str, Any]:
    mask = np.zeros((30, 40), dtype=np.uint8, order="F")
    mask[4:9, 6:20] = not empty
    code = coco_mask.encode(mask)
    return {"counts": code["counts"].decode(), "size": [30, 40]}


def shape(kind: str, label_id: Any = 0, group: int = 0, attributes: Any = None, **values: Any) -> dict[str, Any]:
    start = {"id": 0, "type": kind, "attributes": attributes or {}, "group": group}
    return {**start, "label_id": label_id, "z_order": 0, **values}


SHAPES = {
    "bbox": (shape("bbox", bbox=[1.0, 2.0, 8.0, 10.0]), [1, 2, 8, 10]),
    "rotated bbox": (shape("bbox", bbox=[10.0, 10.0, 4.0, 2.0], attributes={"rotation": 90.0}), [11, 9, 2, 4]),
    "polygon": (shape("polygon", points=[1.0, 2.0, 9.0, 2.0, 4.0, 12.0]), [1, 2, 8, 10]),
    "mask": (shape("mask", rle=rle()), [6, 4, 14, 5]),
    "ellipse": (shape("ellipse", points=[10.0, 10.0, 18.0, 14.0]), [10, 10, 8, 4]),
    "rotated ellipse": (shape("ellipse", points=[10.0, 10.0, 18.0, 14.0], attributes={"rotation": 90}), [12, 8, 4, 8]),
    "cuboid_2d": (shape("cuboid_2d", points=[[2 + i, 3 + 2 * i] for i in range(8)]), [2, 3, 7, 14]),
    "skeleton": (
        shape(
            "skeleton",
            elements=[
                shape("points", points=[3.0, 4.0], visibility=[2]),
                shape("points", points=[9.0, 8.0], visibility=[1]),
                shape("points", points=[0.0, 0.0], visibility=[0]),
            ],
        ),
        [3, 4, 6, 4],
    ),
}


def item(name: str, *annotations: object, number: int = 0) -> dict[str, Any]:
    return {
        "id": Path(name).with_suffix("").as_posix(),
        "annotations": list(annotations),
        "attr": {"frame": number},
        "image": {"path": name, "size": [30, 40]},
    }


def write(file: Path, *items: object, names: tuple[str, ...] = ("dog", "cat", "unused")) -> Path:
    labels = [{"name": name, "parent": "", "attributes": []} for name in names]
    content = {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {
            "label": {"labels": labels, "label_groups": [], "attributes": ["occluded"]},
            "mask": {"colormap": [{"label_id": 0, "r": 61, "g": 61, "b": 245}]},
            "points": {"items": []},
        },
        "items": list(items),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


@pytest.fixture
def folder(tmp_path: Path, write_image: Write) -> Path:
    write_image(tmp_path / "images" / "default" / "cam 1" / "ä.jpg")
    return tmp_path


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_with_an_area_is_the_box_around_it(folder: Path, name: str) -> None:
    content, box = SHAPES[name]
    file = write(folder / "annotations" / "default.json", item("cam 1/ä.jpg", content))
    for spec in (str(folder), str(file), f"datumaro:{folder}"):
        row = load_data(spec)["train"][0]
        assert row["image"]["path"] == str(folder / "images" / "default" / "cam 1" / "ä.jpg")
        assert (row["width"], row["height"]) == (40, 30)
        assert row["objects"]["bbox"] == [pytest.approx(box)]


def test_a_file_that_datumaro_wrote(folder: Path) -> None:
    """Copied from its exporter's file."""
    text = """{"dm_format_version": "1.0", "media_type": 2, "infos": {}, "categories": {"label": {"labels": [{"name": "dog",
    "parent": "", "attributes": []}, {"name": "Käse", "parent": "", "attributes": []}], "label_groups": [], "attributes": []}},
    "items": [{"id": "cam 1/ä", "annotations": [{"id": 1, "type": "bbox", "attributes": {"occluded": false, "truncated": true},
    "group": 1, "label_id": 0, "z_order": 0, "bbox": [1.0, 2.0, 8.0, 10.0]}, {"id": 2, "type": "polygon", "attributes": {},
    "group": 2, "label_id": 1, "points": [1.0, 2.0, 9.0, 2.0, 4.0, 12.0], "z_order": 0}, {"id": 3, "type": "mask",
    "attributes": {}, "group": 3, "label_id": 0, "rle": {"counts": "h55i00000000000000000000000000db0", "size": [30, 40]},
    "z_order": 0}, {"id": 4, "type": "ellipse", "attributes": {}, "group": 0, "label_id": 0, "points": [10.0, 10.0, 18.0, 14.0],
    "z_order": 0}], "image": {"path": "cam 1/ä.jpg", "size": [30, 40]}}]}"""
    (folder / "annotations").mkdir()
    (folder / "annotations" / "train.json").write_text(text, encoding="utf-8")
    objects = load_data(str(folder))["train"][0]["objects"]
    assert objects["bbox"] == [[1, 2, 8, 10], [1, 2, 8, 10], [6, 4, 14, 5], [10, 10, 8, 4]]
    assert (objects["category"], objects["truncated"]) == ([0, 1, 0, 0], [True, False, False, False])


def test_classes_flags_and_annotations_without_area(folder: Path) -> None:
    shapes = [
        shape("bbox", 1, bbox=[1, 2, 3, 4], attributes={"is_crowd": True, "occluded": True}),
        shape("bbox", 0, bbox=[1, 2, 3, 4], attributes={"difficult": True, "truncated": True}),
        shape("points", points=[1.0, 2.0], visibility=[2]),
        shape("polyline", points=[1.0, 2.0, 3.0, 4.0]),
        shape("cuboid_3d", position=[1.0, 2.0, 3.0], rotation=[0.0] * 3, scale=[1.0] * 3),
        {"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": 1},
        {"id": 0, "type": "caption", "attributes": {}, "group": 0, "caption": "a cat"},
    ]
    write(folder / "annotations" / "default.json", item("cam 1/ä.jpg", *shapes))
    data = load_source_data(str(folder))
    rows = data.splits["train"]
    assert class_names(rows) == ["dog", "cat"]  # in the order of the labels
    objects = rows[0]["objects"]
    assert objects["category"] == [1, 0]
    assert (objects["iscrowd"], objects["difficult"], objects["truncated"]) == (
        [True, False], [False, True], [False, True],
    )  # fmt: skip
    assert [problem.kind for problem in data.problems] == ["shape without area"] * 3


def test_parts_of_a_group_are_one_object_and_grouped_boxes_are_several(folder: Path) -> None:
    parts = [
        shape("polygon", 0, 5, points=[1, 2, 9, 2, 4, 12]),
        shape("polygon", 0, 5, points=[20, 20, 30, 20, 25, 28]),
        shape("bbox", 0, 5, bbox=[1, 2, 29, 26]),
        shape("polygon", 1, 5, points=[1, 2, 9, 2, 4, 12]),  # another class
        shape("bbox", 0, 6, bbox=[0, 0, 5, 5]),
        shape("bbox", 0, 6, bbox=[9, 9, 5, 5]),
    ]
    write(folder / "annotations" / "default.json", item("cam 1/ä.jpg", *parts))
    objects = load_data(str(folder))["train"][0]["objects"]
    assert objects["bbox"] == [[1, 2, 29, 26], [1, 2, 8, 10], [0, 0, 5, 5], [9, 9, 5, 5]]
    assert objects["category"] == [0, 1, 0, 0]


def test_subsets_are_splits_with_folders_of_their_own(tmp_path: Path, write_image: Write) -> None:
    for seed, subset in enumerate(("Train", "Validation", "Test", "default")):
        write_image(tmp_path / "images" / subset / "a.jpg", seed=seed)
        write(tmp_path / "annotations" / f"{subset}.json", item("a.jpg", shape("bbox", bbox=[1, 2, 3, 4])))
    data = load_data(str(tmp_path))
    assert {split: [row["image"]["path"] for row in rows] for split, rows in data.items()} == {
        "train": [str(tmp_path / "images" / subset / "a.jpg") for subset in ("Train", "default")],
        "validation": [str(tmp_path / "images" / "Validation" / "a.jpg")],
        "test": [str(tmp_path / "images" / "Test" / "a.jpg")],
    }


def test_a_subset_that_is_damaged_is_an_error(folder: Path) -> None:
    write(folder / "annotations" / "train.json", item("cam 1/ä.jpg", shape("bbox", bbox=[1, 2, 3, 4])))
    (folder / "annotations" / "val.json").write_text("{")
    with pytest.raises(InputError, match=r"val\.json: not valid JSON"):
        load_data(f"datumaro:{folder}")


def test_unreadable_annotations_are_problems_of_their_image(folder: Path) -> None:
    valid = shape("bbox", bbox=[1, 2, 3, 4])
    broken = [
        3,
        shape("blob"),
        shape("bbox", bbox=[1, 2, 3]),
        shape("polygon", points=[1, 2, 3, 4]),
        shape("mask", rle=rle() | {"counts": "abc"}),
        shape("mask", rle=rle(empty=True)),
        shape("ellipse", points=[1, 2, 3]),
        shape("skeleton", elements=[]),
        shape("bbox", 7, bbox=[1, 2, 3, 4]),
        shape("bbox", None, bbox=[1, 2, 3, 4]),
    ]
    file = write(folder / "annotations" / "default.json", item("cam 1/ä.jpg", *broken, valid), {"annotations": [1, 2]})
    with pytest.raises(DefectiveDataError) as caught:
        load_data(str(folder))
    lost, *problems = caught.value.data.problems
    assert (lost.message, lost.count) == (f"{file}: image 1: must have an id or image.path", 2)
    assert [problem.message.partition(": ")[2].partition(":")[0] for problem in problems] == [
        f"image 0 (cam 1/ä), annotation {number}" for number in range(len(broken))
    ]
    assert [problem.kind for problem in problems] == ["unreadable annotation"] * 8 + ["unknown class"] * 2
    assert len(caught.value.data.splits["train"][0]["objects"]["bbox"]) == 3


def test_images_by_their_ids_missing_ones_and_images_elsewhere(folder: Path) -> None:
    without_path = {"id": "cam 1/ä", "annotations": [shape("bbox", bbox=[1, 2, 3, 4])], "image": {"path": None}}
    write(folder / "annotations" / "default.json", without_path, item("gone.jpg"))
    rows = load_data(str(folder))["train"]
    assert rows[0]["image"]["path"] == str(folder / "images" / "default" / "cam 1" / "ä.jpg")
    assert (rows[0]["width"], rows[0]["height"]) == (40, 30)
    assert rows[1]["image"]["path"].endswith("gone.jpg")
    (folder / "images").rename(folder.parent / f"{folder.name} photos")
    with pytest.raises(InputError, match="none of its 2 images is below"):
        load_data(str(folder))
    rows = load_data(str(folder), images=folder.parent / f"{folder.name} photos")["train"]
    assert Path(rows[0]["image"]["path"]).name == "ä.jpg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON file of Datumaro"),
        ('{"items": 3}', "not a JSON file of Datumaro"),
        ('{"items": [], "categories": {}}', "must have the names of the classes"),
        ('{"items": [], "categories": {"label": {"labels": [{"name": "a"}, {"name": "a"}]}}}', "different names"),
    ],
)
def test_files_that_are_none_of_datumaro(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load_data(f"datumaro:{tmp_path / 'a.json'}")


@pytest.mark.parametrize("rotation", ["90,0", [90], "left"])
@pytest.mark.parametrize("kind", ["bbox", "ellipse"])
def test_a_rotation_that_cant_be_read_is_a_problem_of_its_image(folder: Path, kind: str, rotation: object) -> None:
    content, box = SHAPES[kind]
    rows = [content | {"attributes": {"rotation": rotation}}, content | {"attributes": {"rotation": None}}]
    data = load_source_data(f"datumaro:{write(folder / 'annotations' / 'default.json', item('cam 1/ä.jpg', *rows))}")
    assert data.splits["train"][0]["objects"]["bbox"] == [pytest.approx(box)]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 0)]
    assert "rotation in degrees" in data.problems[0].message


@pytest.mark.parametrize("lost", [{}, {"annotations": None}, {"annotations": {}}])
def test_an_item_that_lost_its_annotations_is_a_problem_of_its_image(folder: Path, lost: dict[str, object]) -> None:
    other = {key: value for key, value in item("cam 1/b.jpg").items() if key != "annotations"} | lost
    file = write(folder / "annotations" / "default.json", item("cam 1/ä.jpg", SHAPES["bbox"][0]), other)
    problems = load_source_data(f"datumaro:{file}").problems
    assert [(one.kind, one.row) for one in problems] == [("unreadable annotation", 1)]
    assert "must have annotations, a list" in problems[0].message
