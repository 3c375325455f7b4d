"""Supervisely projects as the SDK 6.74.51 writes them, and annotations of 2018 without a geometryType."""

from __future__ import annotations

import base64
import io
import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from detr_ft.data.schema import class_names
from detr_ft.data.sources.base import DefectiveDataError
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]

META = {
    "classes": [
        {"title": title, "shape": shape, "color": "#8A0F59", "geometry_config": {}, "id": number, "hotkey": ""}
        for number, (title, shape) in enumerate((("car", "any"), ("Käse", "rectangle"), ("unused", "bitmap")), start=1)
    ],
    "tags": [
        {"name": "night", "value_type": "none", "color": "#FF0000", "id": 9, "hotkey": "", "applicable_type": "all"}
    ],
    "projectType": "images",
}


def encoded(mask: np.ndarray, mode: str = "1") -> str:
    """A mask as the SDK writes it: a PNG with one bit a pixel, older ones with the mask in alpha."""
    image = Image.fromarray(mask)
    if mode == "RGBA":
        image = Image.merge("RGBA", [*[Image.new("L", image.size, 255)] * 3, image.convert("L")])
    stream = io.BytesIO()
    image.save(stream, format="PNG", transparency=0) if mode == "1" else image.save(stream, format="PNG")
    return base64.b64encode(zlib.compress(stream.getvalue())).decode()


MASK = np.zeros((6, 8), dtype=bool)
MASK[1:4, 2:7] = True


def figure(kind: str, title: str = "car", **values: Any) -> dict[str, Any]:
    return {
        "id": 497521359, "classId": 1, "description": "", "geometryType": kind, "labelerLogin": "user", "tags": [],
        "createdAt": "2024-05-01T10:00:00.000Z", "updatedAt": "2024-05-01T10:00:00.000Z", "classTitle": title, **values,
    }  # fmt: skip


def points(*pairs: tuple[float, float]) -> dict[str, Any]:
    return {"points": {"exterior": [list(pair) for pair in pairs], "interior": []}}


FIGURES = {
    "rectangle": (figure("rectangle", **points((1, 2), (9, 12))), [1, 2, 8, 10]),
    "turned corners": (figure("rectangle", **points((9, 12), (1, 2))), [1, 2, 8, 10]),
    "oriented_bbox": (figure("oriented_bbox", points=[[10, 10], [14, 12]], angle=math.pi / 2), [11, 9, 2, 4]),
    "polygon": (figure("polygon", **points((1, 2), (9, 2), (4, 12))), [1, 2, 8, 10]),
    "bitmap": (figure("bitmap", bitmap={"data": encoded(MASK), "origin": [20, 10]}), [22, 11, 5, 3]),
    "bitmap with alpha": (figure("bitmap", bitmap={"data": encoded(MASK, "RGBA"), "origin": [20, 10]}), [22, 11, 5, 3]),
    "alpha_mask": (figure("alpha_mask", bitmap={"data": encoded(MASK, "L"), "origin": [0, 0]}), [2, 1, 5, 3]),
    "cuboid": (
        figure("cuboid", points=[[2, 2], [8, 2], [8, 9], [2, 9], [10, 1], [10, 7], [4, 1]], faces=[[0, 1, 2, 3]]),
        [2, 1, 8, 8],
    ),
    "cuboid_2d": (
        figure("cuboid_2d", vertices={f"v{i}": {"loc": [3 + i, 4 + 2 * i]} for i in range(8)}),
        [3, 4, 7, 14],
    ),
    "graph": (
        figure("graph", nodes={"a": {"loc": [3, 4]}, "b": {"loc": [9, 8]}, "c": {"loc": [0, 0], "disabled": True}}),
        [3, 4, 6, 4],
    ),
}


def write(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return file


def annotation(*objects: object) -> dict[str, Any]:
    return {"description": "", "tags": [], "size": {"height": 30, "width": 40}, "objects": list(objects)}


@pytest.fixture
def project(tmp_path: Path, write_image: Write) -> Path:
    write(tmp_path / "meta.json", META)
    write_image(tmp_path / "ds1" / "img" / "ä.jpg")
    return tmp_path


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_with_an_area_is_the_box_around_it(project: Path, name: str) -> None:
    content, box = FIGURES[name]
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation(content))
    for spec in (str(project), str(project / "ds1"), f"supervisely:{project}"):
        row = load_data(spec)["train"][0]
        assert row["image"]["path"] == str(project / "ds1" / "img" / "ä.jpg")
        assert row["objects"]["bbox"] == [pytest.approx(box)]


def test_an_annotation_that_the_sdk_wrote(project: Path) -> None:
    """Copied from the file that `Dataset.add_item_np` wrote, without a server: figures have neither id nor classId."""
    bitmap = (
        "eJzrDPBz5+WS4mJgYOD19HAJAtKsQMzMyAwkE3+E7wZSbAE+Ia5A+v///0tvzr8LZDGWBPkFMzg8u5EG5PB5ujiGVMxJ/nHwyIEjDAwsrxj+5uzRXgiU"
        "YfB09XNZ55TQBAD67x3M"
    )
    alpha = "eJzrDPBz5+WS4mJgYOD19HAJAtKsQMzMASQY6mJnqQApppIgv2AGhrLJZy2APEFPF8eQijnJNgcPAMGRBgVG3gkM5z7JG/KAtHi6+rmsc0poAgAJwRW1"
    notes = {"description": "", "tags": [], "nnCreated": False, "nnUpdated": False}
    figures = [
        {"classTitle": "Käse", **points((1, 2), (9, 12)), "geometryType": "rectangle", "shape": "rectangle"},
        {"classTitle": "car", **points((1, 2), (9, 2), (4, 12)), "shape": "polygon", "geometryType": "polygon"},
        {
            "classTitle": "car",
            "bitmap": {"origin": [22, 11], "data": bitmap},
            "shape": "bitmap",
            "geometryType": "bitmap",
        },
        {"classTitle": "car", **points((4, 3)), "geometryType": "point", "shape": "point"},
        {"classTitle": "car", **points((1, 2), (9, 2)), "shape": "line", "geometryType": "line"},
        {
            "classTitle": "car",
            "points": [[10, 10], [14, 12]],
            "angle": 1.5707963267948966,
            "geometryType": "oriented_bbox",
        },
        {"classTitle": "car", "bitmap": {"origin": [22, 11], "data": alpha}, "geometryType": "alpha_mask"},
    ]
    content = annotation(*(figure | notes for figure in figures)) | {"customBigData": {}}
    write(project / "ds1" / "ann" / "ä.jpg.json", content)
    boxes = [[1, 2, 8, 10], [1, 2, 8, 10], [22, 11, 5, 3], [11, 9, 2, 4], [22, 11, 5, 3]]
    assert load_data(str(project))["train"][0]["objects"]["bbox"] == [pytest.approx(box) for box in boxes]


def test_classes_and_figures_without_area(project: Path) -> None:
    lines = [figure("point", **points((1, 1))), figure("line", **points((1, 1), (2, 2)))]
    boxes = [figure("rectangle", title, **points((1, 2), (9, 12))) for title in ("car", "Käse")]
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation(*lines, *boxes))
    data = load_source_data(str(project))
    assert class_names(data.splits["train"]) == ["Käse", "car"]
    assert data.splits["train"][0]["objects"]["category"] == [1, 0]
    assert [problem.kind for problem in data.problems] == ["shape without area"] * 2
    assert (data.splits["train"][0]["width"], data.splits["train"][0]["height"]) == (40, 30)


def test_data_sets_that_are_named_after_splits(project: Path, write_image: Write) -> None:
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation())
    for seed, split in enumerate(("train", "val", "test")):
        write_image(project / split / "img" / "a.jpg", seed=seed + 1)
        write(project / split / "ann" / "a.jpg.json", annotation(FIGURES["rectangle"][0]))
    data = load_data(str(project))
    assert {split: len(rows) for split, rows in data.items()} == {"train": 2, "validation": 1, "test": 1}
    assert data["validation"][0]["image"]["path"] == str(project / "val" / "img" / "a.jpg")


def test_data_sets_in_data_sets_and_names_without_suffix(project: Path, write_image: Write) -> None:
    write_image(project / "ds1" / "datasets" / "inner" / "img" / "b.png", seed=3)
    shape = {"bitmap": None, "classTitle": "Käse", "tags": [], **points((1, 2), (9, 12))}  # of 2018
    write(project / "ds1" / "datasets" / "inner" / "ann" / "b.json", annotation(shape))
    rows = load_data(str(project))["train"]
    assert rows[0]["image"]["path"] == str(project / "ds1" / "datasets" / "inner" / "img" / "b.png")
    assert rows[0]["objects"]["bbox"] == [[1, 2, 8, 10]]


def test_unreadable_figures_are_problems_of_their_image(project: Path) -> None:
    valid = figure("rectangle", **points((1, 2), (9, 12)))
    damaged = encoded(MASK)[:40]
    broken = [
        3,
        figure("rectangle", None),  # type: ignore[arg-type]
        figure("blob", **points((1, 2))),
        figure("rectangle", **points((1, 2))),
        figure("polygon", points={"exterior": [[1, 2], [3, 4], ["x", 5]]}),
        figure("bitmap", bitmap={"data": damaged, "origin": [1, 2]}),
        figure("bitmap", bitmap={"data": encoded(MASK & False), "origin": [1, 2]}),
        figure("bitmap", bitmap={"data": encoded(MASK)}),
        figure("cuboid", points=[[1, 2]]),
        figure("graph", nodes={"a": {"loc": None}}),
        figure("rectangle", "undeclared", **points((1, 2), (9, 12))),
    ]
    file = write(project / "ds1" / "ann" / "ä.jpg.json", annotation(*broken, valid))
    with pytest.raises(DefectiveDataError) as caught:
        load_data(str(project))
    problems = caught.value.data.problems
    assert [problem.message.partition(": ")[2].partition(":")[0] for problem in problems] == [
        f"object {number}" for number in range(len(broken))
    ]
    assert all(problem.message.startswith(f"{file}: object") and problem.row == 0 for problem in problems)
    assert problems[-1].kind == "unknown class"
    assert caught.value.data.splits["train"][0]["objects"]["bbox"] == [[1, 2, 8, 10]] * 2


def test_a_damaged_file_is_a_problem_of_its_image(project: Path, write_image: Write) -> None:
    write_image(project / "ds1" / "img" / "b.jpg", seed=1)
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation(FIGURES["rectangle"][0]))
    for text in ("{", '{"objects": 3}', "[]"):
        (project / "ds1" / "ann" / "b.jpg.json").write_text(text)
        (problem,) = load_source_data(str(project)).problems
        assert (problem.kind, problem.split, problem.row) == ("unreadable annotation", "train", 0)
        assert problem.message.startswith(f"{project / 'ds1' / 'ann' / 'b.jpg.json'}: ")


def test_missing_images_and_images_elsewhere(project: Path) -> None:
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation(FIGURES["rectangle"][0]))
    write(project / "ds1" / "ann" / "b.jpg.json", annotation())
    rows = load_data(str(project))["train"]
    assert rows[0]["image"]["path"] == str(project / "ds1" / "img" / "b.jpg")  # missing
    (project / "ds1" / "img").rename(project / "photos")
    (project / "empty").mkdir()
    with pytest.raises(InputError, match="none of its 2 images is below"):
        load_data(str(project), images=project / "empty")
    assert load_data(str(project), images=project / "photos")["train"][1]["image"]["path"] == str(
        project / "photos" / "ä.jpg"
    )


def test_files_that_are_no_project(project: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected meta\.json and folders with img/ and ann/"):
        load_data(f"supervisely:{project}")
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation(FIGURES["rectangle"][0]))
    for content in ({"classes": []}, {"classes": [{"title": "a"}, {"title": "a"}]}, []):
        write(project / "meta.json", content)
        with pytest.raises(InputError, match=r"meta\.json: "):
            load_data(str(project))
    (project / "meta.json").unlink()
    assert class_names(load_data(str(project))["train"]) == ["car"]


@pytest.mark.parametrize("content", [{}, {"size": {"height": 30, "width": 40}}, {"objects": None}, {"objects": {}}, []])
def test_a_file_that_lost_its_objects_is_a_problem_of_its_image(
    project: Path, write_image: Write, content: object
) -> None:
    write_image(project / "ds1" / "img" / "b.jpg", seed=1)
    write(project / "ds1" / "ann" / "b.jpg.json", content)
    write(project / "ds1" / "ann" / "ä.jpg.json", annotation(FIGURES["rectangle"][0]))
    data = load_source_data(f"supervisely:{project}")
    assert [len(one["bbox"]) for one in data.splits["train"]["objects"]] == [0, 1]
    assert [(one.kind, one.row) for one in data.problems] == [("unreadable annotation", 0)]
    assert data.problems[0].message.endswith("must have objects, a list, which is empty for an image without objects")
