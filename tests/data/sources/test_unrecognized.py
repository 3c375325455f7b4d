"""Errors of data that no source recognizes: what is there, and the command or the step that helps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detr_ft.data.schema import class_names
from detr_ft.data.sources.load import load_data
from detr_ft.data.sources.registry import check_spec
from detr_ft.errors import InputError

Write = Callable[..., Path]


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def error(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_data(str(path))
    (message,) = caught.value.problems
    assert message.startswith(f"{path}: format not recognized: ")
    assert ", and none of the formats saved, yolo, darknet, " in message
    return message


def test_an_empty_folder(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/a.jpg")
    assert "not recognized: the folder is empty, and none" in error(tmp_path)


def test_images_alone_lack_annotations(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "sub/b.JPG", "c.png")
    message = error(tmp_path)
    assert "it has 2 .jpg and 1 .png files, for example a.jpg" in message
    assert (
        f"Annotations of the images are missing: if they are elsewhere, give their path, and the images with --images {tmp_path}. "
        in message
    )
    assert message.endswith("If the format is one of these, name it, as in coco:PATH")


def test_files_are_counted_by_suffix_with_an_example_that_is_no_image(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train/{index}.jpg" for index in range(3)), "train/Cells.tfrecord", "README", "a.b", "c.d")
    message = error(tmp_path)
    assert "it has 3 .jpg, 1 suffixless, 1 .b and 2 other files, for example README" in message
    assert message.endswith("TFRecord files are not read. Export the data as COCO JSON, and give that folder")


@pytest.mark.parametrize("name", ["x.zip", "x.rar", "x.7z", "x.tar.gz", "x.tar"])
def test_archives_are_to_be_unpacked(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert error(tmp_path / name).endswith("Unpack it, and give the folder")
    assert error(tmp_path).endswith(f"Unpack {tmp_path / name}, and give the folder")


@pytest.mark.parametrize(
    ("name", "content", "there"),
    [
        ("a.tfrecord", "x", "it is a TFRecord file"),
        ("a.tfrecord-00000-of-00002", "x", "it is a TFRecord file"),
        ("a.jpg", "x", "it is an image"),
        ("a.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4]}]', "it is a list of detections"),
        ("a.txt", "0 .5 .5 .1 .1\n", "it is a label file of YOLO"),
        ("a.txt", "", "the file is empty"),
        ("a.doc", "x", "it is a .doc file"),
        ("a", "x", "it is a file without suffix"),
    ],
)
def test_files(tmp_path: Path, name: str, content: str, there: str) -> None:
    (tmp_path / name).write_text(content)
    assert f"not recognized: {there}" in error(tmp_path / name)


def test_detections_alone(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4]}]))
    assert f"{tmp_path / 'results.json'} is a list of detections: " in error(tmp_path)


def write_yolo(folder: Path, write_image: Write, *splits: str) -> None:
    for seed, split in enumerate(splits):
        write_image(folder / split / "images/a.png", seed=seed)
        (folder / split / "labels").mkdir(parents=True)
        (folder / split / "labels/a.txt").write_text("0 .5 .5 .3 .3\n2 .5 .5 .1 .1\n")


@pytest.mark.parametrize("nested", ["two-numbers", "x/two-numbers"])
def test_a_recognized_subfolder_is_named_with_its_command(tmp_path: Path, write_image: Write, nested: str) -> None:
    write_yolo(tmp_path / nested, write_image, "")
    (tmp_path / nested / "data.yaml").write_text("train: images\nnames: [a, b, c]\n")
    inside = tmp_path / nested
    assert error(tmp_path).endswith(f" {inside} is recognized as yolo: give yolo:{inside}")


def test_several_recognized_subfolders_are_named(tmp_path: Path) -> None:
    for number in (1, 2, 3, 4):
        touch(tmp_path, f"task{number}/annotations.xml")
        (tmp_path / f"task{number}/annotations.xml").write_text("<annotations></annotations>")
    listed = ", ".join(f"{tmp_path / f'task{number}'} as cvat" for number in (1, 2, 3))
    assert error(tmp_path).endswith(
        f" 4 folders in it are recognized, {listed} and 1 more: give one of them, as in cvat:{tmp_path / 'task1'}"
    )


@pytest.mark.parametrize(
    ("splits", "lines"),
    [
        (("",), ["path: .", "train: images"]),
        (("train", "valid"), ["train: train/images", "val: valid/images"]),
    ],
)
def test_label_files_without_names_get_the_data_yaml_to_write(
    tmp_path: Path, write_image: Write, splits: tuple[str, ...], lines: list[str]
) -> None:
    write_yolo(tmp_path, write_image, *splits)
    message = error(tmp_path)
    text, *written = message.split("\n")
    assert (
        f"There are {len(splits)} label files of YOLO (for example {tmp_path / splits[0] / 'labels/a.txt'}) and no data.yaml"
        in text
    )
    assert text.endswith(f"write {tmp_path / 'data.yaml'} with the lines")
    names = [f"name of class {number}" for number in range(3)]
    assert [line.strip() for line in written] == [*lines, f"names: [{', '.join(names)}]"]
    # The data are read with these lines.
    (tmp_path / "data.yaml").write_text("\n".join(line.strip() for line in written))
    data = load_data(str(tmp_path))
    assert [len(rows) for rows in data.values()] == [1] * len(splits)
    assert class_names(data["train"]) == names


def test_a_recognized_subfolder_without_images_gets_the_outer_folder_for_them(
    tmp_path: Path, write_image: Write
) -> None:
    write_yolo(tmp_path, write_image, "")
    (tmp_path / "labels/classes.txt").write_text("cat\ndog\nhorse\n")
    labels = tmp_path / "labels"
    assert error(tmp_path).endswith(f" {labels} is recognized as yolo: give yolo:{labels} --images {tmp_path}")
    rows = load_data(f"yolo:{labels}", images=tmp_path)["train"]
    assert rows[0]["objects"]["category"] == [0, 2]


def test_names_in_a_file_of_another_folder_are_in_the_lines(tmp_path: Path, write_image: Write) -> None:
    write_yolo(tmp_path, write_image, "")
    touch(tmp_path, "names/classes.txt")
    (tmp_path / "names/classes.txt").write_text("cat\nbig: dog\nhorse\n")
    assert error(tmp_path).endswith('names: [cat, "big: dog", horse]')


@pytest.mark.parametrize("prefix", ["", "coco:"])
def test_addresses_are_refused_with_the_name_on_the_hub(prefix: str) -> None:
    with pytest.raises(InputError, match="files of this machine, or as hub:NAME from the Hub"):
        check_spec(f"{prefix}https://host.org/a.json")
    with pytest.raises(InputError, match="or as hub:owner/name from the Hub"):
        check_spec(f"{prefix}https://huggingface.co/datasets/owner/name/tree/main")


def test_create_ml_is_refused_by_name(tmp_path: Path) -> None:
    box = {"label": "cat", "coordinates": {"x": 5, "y": 5, "width": 4, "height": 4}}
    (tmp_path / "a.json").write_text(json.dumps([{"image": "a.jpg", "annotations": [box]}]))
    for path in (tmp_path, tmp_path / "a.json"):
        with pytest.raises(InputError, match=r"Create ML's JSON is not read\. Export the data as COCO JSON"):
            load_data(str(path))
