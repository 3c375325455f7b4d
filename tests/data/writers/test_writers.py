"""Labels in every format: this package's own sources read them back with the same boxes and names."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import pytest
from datasets import Dataset

from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.data.writers.base import (
    LabeledBox,
    LabeledImage,
    relative_names,
    unique_classes,
    unique_names,
    unique_stems,
)
from detr_ft.data.writers.registry import LABEL_FORMATS, label_formats, write_labels
from detr_ft.errors import InputError

SIZE = (200, 100)
NAMES = ["cat", 'größe & "höhe" <x>', "N/A", "dog", "N/A"]
CAT = LabeledBox("cat", (10.25, 20.5, 30.0, 40.125), 0.875)
TALL = LabeledBox(NAMES[1], (0.0, 0.0, 200.0, 100.0), 0.5)
LEAVING = LabeledBox("dog", (-10.0, 60.0, 50.0, 60.0), 0.25)
OUTSIDE = LabeledBox("dog", (300.0, 10.0, 20.0, 20.0), 0.125)
BOXES = {
    "Cam1/0.png": (CAT, TALL),
    "Cam2/0.png": (LEAVING, OUTSIDE),
    "Cam2/ä b#1 & c.png": (CAT,),
    "images/deep/0.png": (CAT, LEAVING),
    "0.jpg": (),
    "0.png": (TALL,),  # the same stem: label files are named after stems
}
INSIDE = {"dog": [0.0, 60.0, 40.0, 40.0]}  # clipped to the image
COPIED = {"yolo", "labelme"}  # formats whose files have the images beside them


@pytest.fixture
def images(tmp_path: Path, write_image: Callable[..., Path]) -> list[LabeledImage]:
    return [
        LabeledImage(
            write_image(tmp_path / "photos" / name, SIZE, number), name, f"photos/{name}", number, *SIZE, BOXES[name]
        )
        for number, name in enumerate(sorted(BOXES))
    ]


def read_back(spec: str, images: Path | None) -> Dataset:
    return load_data(spec, images=images)["train"]


def described(split: Dataset, root: Path) -> dict[str, list[tuple[str, list[float]]]]:
    names = class_names(split)
    return {
        Path(row["image"]["path"]).relative_to(root).as_posix(): [
            (names[label], box) for label, box in zip(row["objects"]["category"], row["objects"]["bbox"], strict=True)
        ]
        for row in split
    }


def expected(name: str, clipped: bool) -> list[tuple[str, object]]:
    boxes = [box for box in BOXES[name] if not (clipped and box is OUTSIDE)]
    return [
        (box.name, pytest.approx(INSIDE.get(box.name, list(box.box)) if clipped else list(box.box), abs=1e-4))
        for box in boxes
    ]


@pytest.mark.parametrize("name", [format.name for format in LABEL_FORMATS])
def test_labels_are_read_back(tmp_path: Path, images: list[LabeledImage], name: str) -> None:
    (format,) = label_formats([name])
    main = write_labels(format, images, NAMES, tmp_path / "out")
    assert main.exists()
    folder = tmp_path / "out" / ("annotations.json" if name == "coco" else name)
    root = folder / "images" if name == "yolo" else folder if name == "labelme" else tmp_path / "photos"
    split = read_back(f"{name}:{folder}", None if name in COPIED else tmp_path / "photos")
    result = described(split, root)
    # An image of the same stem as an earlier one has a number where label files are named after stems.
    renamed = {"0.png": "0-2.png"} if name in COPIED else {}
    assert result == {renamed.get(file, file): expected(file, clipped=name != "coco") for file in BOXES}


def test_a_label_format_without_a_name_is_recognized(tmp_path: Path, images: list[LabeledImage]) -> None:
    for format in LABEL_FORMATS:
        if not format.at_top:
            write_labels(format, images, NAMES, tmp_path / "out")
            images_in = None if format.name in COPIED else tmp_path / "photos"
            assert len(read_back(str(tmp_path / "out" / format.name), images_in)) == len(BOXES), format.name


def test_scores_are_written_where_the_format_has_none(tmp_path: Path, images: list[LabeledImage]) -> None:
    for format in LABEL_FORMATS:
        write_labels(format, images, NAMES, tmp_path)
    with (tmp_path / "yolo/scores.csv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["label_file"] == "labels/Cam1/0.txt"]
    assert [(row["line"], row["label"], float(row["score"])) for row in rows] == [
        ("1", "cat", 0.875),
        ("2", NAMES[1], 0.5),
    ]
    label = (tmp_path / "yolo/labels/Cam1/0.txt").read_text(encoding="utf-8").splitlines()
    assert [len(line.split()) for line in label] == [5, 5]
    shapes = json.loads((tmp_path / "labelme/Cam1/0.json").read_text(encoding="utf-8"))["shapes"]
    assert [shape["score"] for shape in shapes] == [0.875, 0.5]
    tasks = json.loads((tmp_path / "labelstudio/tasks.json").read_text(encoding="utf-8"))
    (task,) = (task for task in tasks if task["data"]["image"].endswith("?d=Cam1/0.png"))
    assert task["predictions"][0]["score"] == 0.5
    assert [region["score"] for region in task["predictions"][0]["result"]] == [0.875, 0.5]
    with (tmp_path / "csv/predictions.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["score"] for row in csv.DictReader(stream) if row["filename"] == "Cam1/0.png"] == ["0.875", "0.5"]


def test_label_studio_gets_an_interface_with_every_class_once(tmp_path: Path, images: list[LabeledImage]) -> None:
    (format,) = label_formats(["labelstudio"])
    write_labels(format, images, NAMES, tmp_path)
    view = ElementTree.parse(tmp_path / "labelstudio/labeling-interface.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == ["cat", NAMES[1], "N/A", "dog"]
    control, (region, *_) = view.find("RectangleLabels"), _regions(tmp_path / "labelstudio/tasks.json")
    assert control is not None
    assert (region["from_name"], region["to_name"]) == (control.get("name"), control.get("toName"))


def _regions(file: Path) -> list[dict[str, object]]:
    tasks = json.loads(file.read_text(encoding="utf-8"))
    return [region for task in tasks for region in task["predictions"][0]["result"]]


def test_results_have_ids_that_the_coco_file_explains(tmp_path: Path, images: list[LabeledImage]) -> None:
    (format,) = label_formats(["coco"])
    results = json.loads(write_labels(format, images, NAMES, tmp_path).read_text(encoding="utf-8"))
    content = json.loads((tmp_path / "annotations.json").read_text(encoding="utf-8"))
    categories = {row["id"]: row["name"] for row in content["categories"]}
    files = {row["id"]: row["file_name"] for row in content["images"]}
    assert len(results) == sum(map(len, BOXES.values()))
    for result in results:
        assert categories[result["category_id"]] == result["category"]
        assert f"photos/{files[result['image_id']]}" == result["file_name"]
        assert result["category"] in {box.name for box in BOXES[files[result["image_id"]]]}


def test_names_are_below_the_common_folder() -> None:
    files = [Path("/p/a/0.jpg"), Path("/p/b/0.jpg"), Path("/p/b/0.JPG"), Path("/p/c.png")]
    assert relative_names(files) == ["a/0.jpg", "b/0.jpg", "b/0.JPG", "c.png"]
    assert unique_names(map(PurePosixPath, ("b/0.jpg", "b/0.JPG", "b/0.png"))) == ["b/0.jpg", "b/0-2.JPG", "b/0.png"]
    assert unique_stems(map(PurePosixPath, ("b/0.jpg", "b/0.JPG", "b/0.png"))) == ["b/0.jpg", "b/0-2.JPG", "b/0-3.png"]
    assert relative_names([Path("x/only.jpg")]) == ["only.jpg"]
    assert relative_names(
        [Path("/p/c.png"), "https://host.org/a%20b/c.png?size=1", "https://host.org/a%20b/c.png"]
    ) == [
        "c.png",
        "host.org/a_b/c.png",
        "host.org/a_b/c-2.png",
    ]
    assert relative_names(["http://[::1/a.png", "https://x/../../etc/passwd"]) == ["url", "x/etc/passwd"]
    assert unique_classes(NAMES) == ["cat", NAMES[1], "N/A", "dog"]


@pytest.mark.parametrize("names", [[], ["coco", "voc"], [""]])
def test_unknown_formats_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match=r"--format\).*coco, yolo, labelme, labelstudio, cvat, csv"):
        label_formats(names)


def test_formats_are_used_once() -> None:
    assert [format.name for format in label_formats(["yolo", "COCO ", "yolo"])] == ["yolo", "coco"]
