"""VGG Image Annotator in the layout of version 2.0.12 (project, JSON, CSV) and of version 1.0.6 (the balloon data set)."""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]

RECT = {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 10}
CIRCLE = {"name": "circle", "cx": 10, "cy": 10, "r": 4}
ELLIPSE = {"name": "ellipse", "cx": 20, "cy": 15, "rx": 8, "ry": 2, "theta": math.pi / 2}
POLYGON = {"name": "polygon", "all_points_x": [1, 9, 4], "all_points_y": [2, 2, 12]}
POLYLINE = {"name": "polyline", "all_points_x": [1, 9], "all_points_y": [2, 2]}
POINT = {"name": "point", "cx": 3, "cy": 4}
BOXES = {"rect": [1, 2, 8, 10], "circle": [6, 6, 8, 8], "ellipse": [18, 7, 4, 16], "polygon": [1, 2, 8, 10]}


def region(shape: Any, **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def metadata(**images: list[dict[str, Any]]) -> dict[str, Any]:
    """The images of a file: `a` is a.jpg."""
    return {
        f"{name}.jpg123": {"filename": f"{name}.jpg", "size": 123, "regions": regions, "file_attributes": {}}
        for name, regions in images.items()
    }


def project(images: dict[str, Any], default_filepath: str = "") -> dict[str, Any]:
    return {
        "_via_settings": {
            "ui": {"annotation_editor_height": 25},
            "core": {"buffer_size": 18, "filepath": {}, "default_filepath": default_filepath},
            "project": {"name": "via_project_6Feb2026_10h5m"},
        },
        "_via_img_metadata": images,
        "_via_attributes": {
            "region": {
                "kind": {
                    "type": "dropdown",
                    "description": "",
                    "options": {"cat": "", "dog": ""},
                    "default_options": {},
                }
            },
            "file": {},
        },
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(images),
    }


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


def write_csv(file: Path, images: dict[str, Any]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(
            ["filename", "file_size", "file_attributes", "region_count", "region_id", "region_shape_attributes",
             "region_attributes"]
        )  # fmt: skip
        for image in images.values():
            regions = image["regions"]
            start = [image["filename"], image["size"], "{}", len(regions)]
            for index, row in enumerate(regions):
                cells = [json.dumps(row[key]) for key in ("shape_attributes", "region_attributes")]
                writer.writerow([*start, index, *cells])
            if not regions:
                writer.writerow([*start, 0, "{}", "{}"])
    return file


SHAPES = metadata(a=[region(shape, kind="cat") for shape in (RECT, CIRCLE, ELLIPSE, POLYGON, POLYLINE, POINT)], b=[])


@pytest.fixture
def images(tmp_path: Path, write_image: Write) -> Path:
    for seed, name in enumerate("ab"):
        write_image(tmp_path / f"{name}.jpg", seed=seed)
    return tmp_path


@pytest.mark.parametrize("form", ["project", "json", "csv", "via1"])
def test_every_shape_with_an_area_is_the_box_around_it(images: Path, form: str) -> None:
    if form == "csv":
        file = write_csv(images / "via_export_csv.csv", SHAPES)
    elif form == "via1":  # regions by their numbers
        numbered = {
            key: {
                "fileref": "",
                "base64_img_data": "",
                **row,
                "regions": {str(i): r for i, r in enumerate(row["regions"])},
            }
            for key, row in SHAPES.items()
        }
        file = write(images / "via_region_data.json", numbered)
    else:
        file = write(images / "via.json", project(SHAPES) if form == "project" else SHAPES)
    for spec in (str(images), str(file), f"via:{file}"):
        data = load_source_data(spec)
        rows = data.splits["train"]
        assert [Path(row["image"]["path"]).name for row in rows] == ["a.jpg", "b.jpg"]
        assert class_names(rows) == ["cat"]
        assert rows[0]["objects"]["bbox"] == [pytest.approx(box) for box in BOXES.values()]
        assert rows[1]["objects"]["bbox"] == []
        assert (rows[0]["width"], rows[0]["height"]) == (40, 30)
        assert [(problem.kind, problem.row) for problem in data.problems] == [("shape without area", 0)] * 2


def test_the_class_is_the_attribute_that_most_regions_have(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    regions = [
        region(RECT, kind="cat", quality="good"),
        region(CIRCLE, kind="dog", quality=""),
        region(POLYGON, kind=7),
    ]
    write(images / "via.json", metadata(a=regions))
    with caplog.at_level(logging.INFO):
        rows = load_data(str(images))["train"]
    assert class_names(rows) == ["7", "cat", "dog"]
    assert (
        "the class of a region is its attribute 'kind', which 3 of 3 regions have; others are quality (1)"
        in caplog.text
    )


def test_equally_frequent_attributes(images: Path) -> None:
    write(images / "via.json", metadata(a=[region(RECT, id="1", Label="cat"), region(CIRCLE, id="2", Label="cat")]))
    assert class_names(load_data(str(images))["train"]) == ["cat"]
    write(images / "via.json", metadata(a=[region(RECT, id="1", Art="cat"), region(CIRCLE, id="2", Art="cat")]))
    assert class_names(load_data(str(images))["train"]) == ["cat"]  # fewer values


def test_a_checkbox_must_have_one_checked_option(images: Path) -> None:
    checked = [{"cat": True}, {"cat": False, "dog": True}, {"cat": True, "dog": True}, {"cat": False}]
    write(images / "via.json", metadata(a=[region(RECT, kind=options) for options in checked]))
    data = load_source_data(str(images))
    assert data.splits["train"][0]["objects"]["category"] == [0, 1]
    assert [problem.message.partition(": ")[2] for problem in data.problems] == [
        "image 'a.jpg123', object 2: must have one class, got 'cat, dog'",
        "image 'a.jpg123', object 3: must have the class, the attribute 'kind'",
    ]


def test_regions_without_any_attribute_are_of_one_class(images: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The published balloon data set: split folders with files of version 1 and without attributes."""
    for split in ("train", "val"):
        (images / split).mkdir()
        name = "a.jpg" if split == "train" else "b.jpg"
        (images / name).rename(images / split / name)
        write(images / split / "via_region_data.json", metadata(**{name[0]: [region(POLYGON)]}))
    data = load_data(str(images))
    assert {split: rows[0]["objects"]["bbox"] for split, rows in data.items()} == {
        "train": [[1, 2, 8, 10]], "validation": [[1, 2, 8, 10]],
    }  # fmt: skip
    assert class_names(data["train"]) == ["object"]
    assert "no region has an attribute; all 2 regions are of the class 'object'" in caplog.text


def test_unreadable_regions_are_problems_of_their_image(images: Path) -> None:
    broken = [
        region(RECT | {"width": "wide"}, kind="cat"),
        region({"name": "blob"}, kind="cat"),
        region(POLYGON | {"all_points_x": [1, 2]}, kind="cat"),
        region(RECT),
        region(None, kind="cat"),
        "nothing",
        region(RECT, kind="cat"),
    ]
    content = metadata(a=broken) | {"lost": {"regions": []}, "odd": 3}
    write(images / "via.json", content)
    with pytest.raises(DefectiveDataError) as caught:
        load_data(str(images))
    data = caught.value.data
    assert [(problem.kind, problem.row) for problem in data.problems] == [
        ("unreadable annotation", None), ("unreadable annotation", None), *[("unreadable annotation", 0)] * 6,
    ]  # fmt: skip
    assert all(problem.message.startswith(f"{images / 'via.json'}: image '") for problem in data.problems)
    assert data.splits["train"][0]["objects"]["bbox"] == [[1, 2, 8, 10]]


def test_unreadable_lines_of_a_csv(images: Path) -> None:
    file = write_csv(images / "a.csv", SHAPES)
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace("}", "")
    lines += [',9,"{}",1,0,"{""name"":""rect""}","{}"', "b.jpg"]
    file.write_text("\n".join(lines) + "\n")
    data = load_source_data(f"via:{file}")
    unreadable = [problem for problem in data.problems if problem.kind == "unreadable annotation"]
    assert [(problem.message.partition(": ")[0], problem.row) for problem in unreadable] == [
        (f"{file}, line 9", None), (f"{file}, line 2", 0),
    ]  # fmt: skip
    assert len(data.splits["train"][0]["objects"]["bbox"]) == 3


def test_images_by_address_and_by_the_folder_of_the_project(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "photos" / "Straße 1.jpg")
    write_image(tmp_path / "photos" / "b.jpg", seed=1)
    content = {
        "1": {"filename": "Straße 1.jpg", "size": 1, "regions": [region(RECT, kind="cat")], "file_attributes": {}},
        "2": {"filename": "https://x.org/b.jpg", "size": -1, "regions": [], "file_attributes": {}},
        "3": {"filename": "gone.jpg", "size": 1, "regions": [region(RECT, kind="cat")], "file_attributes": {}},
    }
    write(tmp_path / "via.json", project(content, "photos/"))
    rows = load_data(str(tmp_path))["train"]
    assert [Path(row["image"]["path"]).relative_to(tmp_path).as_posix() for row in rows] == [
        "photos/Straße 1.jpg", "photos/b.jpg", "gone.jpg",
    ]  # fmt: skip
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none of its 3 images is below"):
        load_data(str(tmp_path), images=tmp_path / "empty")
    (tmp_path / "photos").rename(tmp_path.parent / f"{tmp_path.name} photos")
    rows = load_data(str(tmp_path), images=tmp_path.parent / f"{tmp_path.name} photos")["train"]
    assert rows[0]["width"] == 40


def test_a_project_and_its_export_are_ambiguous(images: Path) -> None:
    write(images / "via_project.json", project(SHAPES))
    write(images / "via_export.json", SHAPES)
    with pytest.raises(InputError, match=r"2 images are in several of the files .* Name one file, as in via:FILE"):
        load_data(str(images))
    (images / "via_export.json").unlink()
    write_csv(images / "via_export.csv", SHAPES)  # the JSON file is used
    assert len(load_data(str(images))["train"]) == 2


def test_a_csv_file_of_other_images_is_read_beside_a_project(images: Path, write_image: Write) -> None:
    write_image(images / "c.jpg", seed=2)
    write(images / "via_project.json", project(SHAPES))
    write_csv(images / "more.csv", metadata(c=[region(RECT, kind="dog")]))
    rows = load_data(str(images))["train"]
    assert [Path(row["image"]["path"]).name for row in rows] == ["a.jpg", "b.jpg", "c.jpg"]
    assert class_names(rows) == ["cat", "dog"]


@pytest.mark.parametrize("text", ["[]", "{", '{"_via_img_metadata": 3}'])
def test_files_that_are_none_of_via(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: not (valid JSON|a file of VGG Image Annotator)"):
        load_data(f"via:{tmp_path / 'a.json'}")
    (tmp_path / "a.csv").write_text("filename,class\n")
    with pytest.raises(InputError, match="must have the columns region_shape_attributes, region_attributes"):
        load_data(f"via:{tmp_path / 'a.csv'}")


@pytest.mark.parametrize("lost", [{}, {"regions": None}, {"regions": "none"}])
def test_an_image_that_lost_its_regions_is_a_problem(tmp_path: Path, write_image: Write, lost: dict[str, Any]) -> None:
    for seed, name in enumerate("abc"):
        write_image(tmp_path / f"{name}.jpg", seed=seed)
    images = metadata(a=[region(RECT, kind="cat")], b=[], c=[])
    images["b.jpg123"]["regions"] = {}
    images["c.jpg123"] = {"filename": "c.jpg", "size": 123, "file_attributes": {}} | lost
    (tmp_path / "via.json").write_text(json.dumps(images))
    data = load_source_data(f"via:{tmp_path / 'via.json'}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [1, 0, 0]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 2)]
    assert "image 'c.jpg123': must have regions, a list" in data.problems[0].message
