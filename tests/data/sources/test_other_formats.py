"""Files of another format beside those of a data set: named, and their images never without objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.sources.load import load_source_data
from detr_ft.errors import InputError

Write = Callable[..., Path]


def write_voc(file: Path) -> None:
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>12</ymax></bndbox>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        f"<annotation><filename>{file.stem}.png</filename><size><width>40</width><height>30</height></size>"
        f"<object><name>cat</name>{box}</object></annotation>"
    )


def write_labelme(file: Path) -> None:
    shape = {"label": "cat", "points": [[1, 2], [9, 12]], "shape_type": "rectangle"}
    file.write_text(json.dumps({"shapes": [shape], "imagePath": f"{file.stem}.png", "imageData": None}))


@pytest.fixture
def mixed(tmp_path: Path, write_image: Write) -> Path:
    """Three images with files of LabelMe, two with files of VOC, one with both."""
    for index in range(6):
        write_image(tmp_path / f"{index}.png", seed=index)
    for index in (0, 1, 2, 5):
        write_labelme(tmp_path / f"{index}.json")
    for index in (3, 4, 5):
        write_voc(tmp_path / f"{index}.xml")
    return tmp_path


@pytest.mark.parametrize(("source", "other", "count"), [("labelme", "voc", 2), ("voc", "labelme", 3)])
def test_files_of_another_format_are_a_problem(mixed: Path, source: str, other: str, count: int) -> None:
    data = load_source_data(f"{source}:{mixed}")
    (problem,) = data.problems
    assert (problem.kind, problem.count, problem.refused) == ("lost annotation", count, False)
    example = mixed / ("3.xml" if other == "voc" else "0.json")
    assert f"{count} files of {other} are not read, for example {example}. " in problem.message
    assert problem.message.endswith(f"{other}:{mixed}")
    with pytest.raises(InputError, match=rf"(?s)for example {example}.*would be read as images without objects"):
        load_source_data(f"{source}:{mixed}", unlabeled="background")


def test_an_unlabeled_image_with_a_file_of_another_format_is_refused(tmp_path: Path, write_image: Write) -> None:
    for index in range(3):
        write_image(tmp_path / f"images/{index}.png", seed=index)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/0.txt").write_text("0 .5 .5 .3 .3\n")
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    write_voc(tmp_path / "Annotations/0.xml")  # also labeled as YOLO
    write_voc(tmp_path / "Annotations/1.xml")
    refused = load_source_data(str(tmp_path)).refused
    assert [(one.kind, one.split, one.row) for one in refused] == [("missing label", "train", 1)]
    assert f"1.png: has no labels of yolo, but {tmp_path / 'Annotations/1.xml'} annotates it" in refused[0].message
    assert [one.kind for one in load_source_data(str(tmp_path), unlabeled="skip").problems] == ["lost annotation"]


@pytest.mark.parametrize("images", [["0_0", "0_1"], ["0_0", "other"]])
def test_a_file_of_many_images_counts_if_it_has_other_images(
    tmp_path: Path, write_coco_file: Write, images: list[str]
) -> None:
    for index in range(2):
        write_voc(tmp_path / f"0_{index}.xml")
    rows = [{"id": index, "file_name": f"x/{name}.png"} for index, name in enumerate(images)]
    file = write_coco_file(tmp_path / "a.json", images=rows, annotations=[])
    messages = [one.message for one in load_source_data(f"voc:{tmp_path}").problems]
    assert len(messages) == ("other" in images)
    assert all(message.endswith(f"coco:{file}") for message in messages)


def test_lists_and_settings_are_no_annotations(mixed: Path) -> None:
    for index in (3, 4, 5):
        (mixed / f"{index}.xml").unlink()
    (mixed / "results.json").write_text(json.dumps([{"image_id": 7, "bbox": [1, 2, 3, 4], "file_name": "x.png"}]))
    (mixed / "images.json").write_text(json.dumps(["x.png", "y.png"]))
    (mixed / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "cat"}]}))
    assert load_source_data(f"labelme:{mixed}").problems == ()
