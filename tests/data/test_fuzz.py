"""Data sets spoiled at random: each is read, or refused in words; never a traceback, a warning of numpy's, a flood."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict
from support.source_writers import WRITERS, Photo

from detr_ft.data.doctor.statistics import statistics_of
from detr_ft.data.sources.load import load_data, load_source_data
from detr_ft.errors import InputError

TRIES = int(os.environ.get("DETR_FT_FUZZ", "30"))  # of each source

NUMBERS = ["", "0", "-1", "1e308", "-1e308", "1e999", "nan", "0.5", "9" * 5000, "1_0", "x", "²", "1e-320"]
WORDS = [".", "~", "\0", "n" * 4000, "a\u2028b.png", "False", "null", "2001-99-99", "c:\\a.png", "http://x/", "{", "'"]
VALUES: list[Any] = [None, True, -1, 0, 0.5, 1e308, -1e308, float("nan"), float("inf"), 10**400, {}, [], [[]], [1, 2, 3, 4],
                     "", "\ud800", "9" * 5000, "..", "/", {"a": [1]}, *WORDS]  # fmt: skip

OBJECTS = {"bbox": [[1, 2, 30, 20], [5, 5, 9, 9]], "category": ["cat", "dog"], "iscrowd": [0, 1], "area": [600, 81]}
RLE = {"size": [30, 40], "counts": [152, 4, 26, 4, 1014]}
COCO = {
    "images": [{"id": i, "file_name": f"{i}.png", "width": 40, "height": 30} for i in (0, 1)],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [[1, 2, 30, 2, 30, 20]], "iscrowd": "1"},
        {"id": 3, "image_id": 1, "category_id": 2, "segmentation": RLE},
    ],
}
LABELME = {
    "version": "5.4.1", "flags": {}, "imagePath": "0.png", "imageData": None, "imageHeight": 30, "imageWidth": 40,
    "shapes": [
        {"label": "cat", "points": [[1, 2], [30, 20]], "group_id": 1, "shape_type": "rectangle", "difficult": False},
        {"label": "dog", "points": [[9, 9], [12, 9]], "group_id": None, "shape_type": "circle", "flags": {}},
        {"label": "dog", "points": [[9, 9], [12, 9], [3, 4]], "group_id": None, "shape_type": "polygon"},
    ],
}  # fmt: skip
LABELSTUDIO = [
    {"id": 1, "data": {"image": "/data/upload/1/0123abcd-0.png"}, "annotations": [{
        "id": 3, "was_cancelled": False, "updated_at": "2024-05-01T10:00:00Z", "result": [
            {"id": "a", "type": "rectanglelabels", "original_width": 40, "original_height": 30, "image_rotation": 0,
             "value": {"x": 1, "y": 2, "width": 50, "height": 60, "rotation": 10, "rectanglelabels": ["cat"]}},
            {"id": "b", "type": "polygonlabels", "value": {"points": [[1, 2], [3, 4], [5, 1]], "polygonlabels": ["dog"]}},
        ]}]},
]  # fmt: skip
TABLE = "filename,width,height,class,xmin,ymin,xmax,ymax,difficult,split\n" + "".join(
    f"{i}.png,40,30,cat,1,2,30,20,0,{split}\n" for i, split in enumerate(("train", "val"))
)
VOC = (
    "<annotation><filename>0.png</filename><size><width>40</width><height>30</height></size><object><name>cat</name>"
    "<truncated>0</truncated><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>20</ymax>"
    "</bndbox></object></annotation>"
)
CVAT = (
    '<annotations><version>1.1</version><image id="0" name="0.png" width="40" height="30"><box label="cat" xtl="1.0" '
    'ytl="2.0" xbr="30.0" ybr="20.0" rotation="5.0"/><polygon label="dog" points="1.0,2.0;3.0,4.0;5.0,1.0"/></image>'
    '<image id="1" name="1.png" subset="val" width="40" height="30"></image></annotations>'
)
YAML = "path: .\ntrain: images\nval: list.txt\nnc: 2\nnames: [cat, dog]\n"

VIA = {"0.png9": {"filename": "0.png", "size": 9, "file_attributes": {}, "regions": [
    {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 8, "height": 9}, "region_attributes": {"kind": "cat"}},
    {"shape_attributes": {"name": "ellipse", "cx": 9, "cy": 9, "rx": 4, "ry": 2, "theta": 1.2}, "region_attributes": {"kind": "dog"}},
    {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 4], "all_points_y": [2, 2, 9]},
     "region_attributes": {"kind": {"cat": True, "dog": False}}},
    {"shape_attributes": {"name": "circle", "cx": 9, "cy": 9, "r": 4}, "region_attributes": {"kind": "dog"}}]}}  # fmt: skip
VIA_CSV = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n"
    '0.png,9,"{}",1,0,"{""name"":""rect"",""x"":1,""y"":2,""width"":8,""height"":9}","{""kind"":""cat""}"\n'
    '1.png,9,"{}",0,0,"{}","{}"\n'
)
SUPERVISELY = {"description": "", "tags": [], "size": {"height": 30, "width": 40}, "objects": [
    {"id": 1, "classId": 1, "geometryType": "rectangle", "classTitle": "cat", "points": {"exterior": [[1, 2], [9, 9]], "interior": []}},
    {"id": 2, "classId": 1, "geometryType": "polygon", "classTitle": "cat", "points": {"exterior": [[1, 2], [9, 9], [4, 1]], "interior": []}},
    {"id": 3, "classId": 1, "geometryType": "oriented_bbox", "classTitle": "cat", "points": [[1, 2], [9, 9]], "angle": 0.3},
    {"id": 4, "classId": 1, "geometryType": "graph", "classTitle": "cat", "nodes": {"a": {"loc": [1, 2]}, "b": {"loc": [3, 5]}}}]}  # fmt: skip
META = {"classes": [{"title": "cat", "shape": "any", "color": "#FF0000", "id": 1}], "tags": [], "projectType": "images"}
DATUMARO = {"dm_format_version": "1.0", "infos": {}, "categories": {"label": {"labels": [{"name": "cat", "parent": ""}]}}, "items": [
    {"id": "0", "image": {"path": "0.png", "size": [30, 40]}, "attr": {"frame": 0}, "annotations": [
        {"id": 0, "type": "bbox", "attributes": {"rotation": 20.0}, "group": 0, "label_id": 0, "bbox": [1, 2, 9, 9]},
        {"id": 1, "type": "polygon", "attributes": {}, "group": 3, "label_id": 0, "points": [1, 2, 9, 9, 4, 1]},
        {"id": 2, "type": "mask", "attributes": {"is_crowd": True}, "group": 0, "label_id": 0, "rle": RLE},
        {"id": 3, "type": "ellipse", "attributes": {}, "group": 0, "label_id": 0, "points": [1, 2, 9, 9]}]}]}  # fmt: skip
KITTI = "Car 0.00 0 1.85 1.00 2.00 9.00 12.00 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n" * 2
VERTEX = {
    "imageGcsUri": "gs://b/0.png",
    "boundingBoxAnnotations": [{"displayName": "cat", "xMin": "0.1", "yMin": "0.1", "xMax": "0.5", "yMax": "0.6"}] * 2,
    "dataItemResourceLabels": {"aiplatform.googleapis.com/ml_use": "training"},
}
AZURE = {
    "image_url": "azureml://x/0.png",
    "image_details": {"format": "png", "width": "40px", "height": "30px"},
    "label": [
        {"label": "cat", "topX": 0.1, "topY": 0.1, "bottomX": 0.5, "bottomY": 0.6, "isCrowd": 0},
        {"label": "dog", "isCrowd": "false", "polygon": [[0.1, 0.1, 0.4, 0.1, 0.4, 0.6]]},
    ],
}
SAGEMAKER = {
    "source-ref": "s3://b/0.png",
    "boxes": {"image_size": [{"width": 40, "height": 30, "depth": 3}], "annotations": [
        {"class_id": 0, "left": 1, "top": 2, "width": 9, "height": 9}, {"class_id": 0, "left": 3, "top": 2, "width": 9, "height": 9}]},
    "boxes-metadata": {"class-map": {"0": "cat"}, "type": "groundtruth/object-detection", "creation-date": "2024-05-01T10:00:00"},
}  # fmt: skip

SOURCES: dict[str, tuple[str, dict[str, Any]]] = {  # what is read, and the files that are spoiled
    "coco": ("coco:a.json", {"a.json": COCO}),
    "labelme": ("labelme:.", {"0.json": LABELME}),
    "labelstudio": ("labelstudio:a.json", {"a.json": LABELSTUDIO}),
    "folder": ("folder:.", {"metadata.jsonl": {"file_name": "0.png", "image_id": 3, "width": 40, "objects": OBJECTS}}),
    "csv": ("csv:a.csv", {"a.csv": TABLE}),
    "bbox": ("csv:a.csv", {"a.csv": "image,label,bbox\n0.png,cat,\"[1, 2, 30, 20]\"\n1.png,dog,1 2 3 4\n"}),
    "voc": ("voc:.", {"Annotations/0.xml": VOC, "ImageSets/Main/train.txt": "0\n"}),
    "cvat": ("cvat:.", {"annotations.xml": CVAT}),
    "yolo": ("yolo:.", {
        "data.yaml": YAML, "labels/0.txt": "0 0.5 0.5 0.2 0.2\n1 .1 .1 .9 .1 .9 .9\n", "list.txt": "./images/1.png\n"
    }),
    "darknet": ("darknet:.", {
        "obj.data": "classes = 2\ntrain = data/train.txt\nvalid = data/valid.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": "cat\ndog\n", "train.txt": "data/obj_train_data/0.png\n", "valid.txt": "data/obj_train_data/1.png\n",
        "obj_train_data/0.txt": "0 0.5 0.5 0.2 0.2\n1 .1 .1 .2 .2\n", "obj_train_data/1.txt": "1 0.5 0.5 0.2 0.2\n",
    }),
    "via": ("via:a.json", {"a.json": VIA}),
    "via csv": ("via:a.csv", {"a.csv": VIA_CSV}),
    "supervisely": ("supervisely:.", {"meta.json": META, "ds/ann/0.png.json": SUPERVISELY}),
    "datumaro": ("datumaro:.", {"annotations/default.json": DATUMARO}),
    "kitti": ("kitti:.", {"label_2/0.txt": KITTI, "label_2/1.txt": KITTI}),
    "sagemaker": ("manifest:a.jsonl", {"a.jsonl": SAGEMAKER}),
    "vertex": ("manifest:a.jsonl", {"a.jsonl": VERTEX}),
    "azure": ("manifest:a.jsonl", {"a.jsonl": AZURE}),
}  # fmt: skip


def spoiled_text(text: str, rng: random.Random) -> bytes:
    """A text with a number or a word replaced, or with some bytes lost, doubled or changed."""
    pattern, others = rng.choice([(r"-?\d+\.?\d*|\.\d+", NUMBERS), (r"[A-Za-z_./\\]+", WORDS), ("", [])])
    if pattern:
        place = rng.choice([*re.finditer(pattern, text)] or [re.match("", text)])
        return f"{text[: place.start()]}{rng.choice(others)}{text[place.end() :]}".encode()
    data = bytearray(text.encode())
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 1, 5, 50]))
    data[start:end] = rng.choice([b"", data[start:end] * 2, rng.randbytes(end - start), b"[" * 3000])
    return bytes(data)


def spoiled_value(value: Any, rng: random.Random) -> Any:
    """A value of JSON with something in it replaced, left out or doubled."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.1:
        return rng.choice(VALUES)
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.1:
        del copy[key]
    elif rng.random() < 0.05 and isinstance(copy, list):
        copy.append(copy[key])
    else:
        copy[key] = spoiled_value(value[key], rng)
    return copy


def write(folder: Path, name: str, content: Any, rng: random.Random | None = None) -> None:
    """Write a file, spoiled where `rng` is given."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    if rng and not isinstance(content, str) and rng.random() < 0.7:
        content, rng = spoiled_value(content, rng), None
    text = content if isinstance(content, str) and "json" not in name else json.dumps(content)
    file.write_bytes(spoiled_text(text, rng) if rng else text.encode())


@pytest.mark.parametrize("source", [name for name, writer in WRITERS.items() if writer.texts])
def test_a_spoiled_data_set_of_every_source_is_read_or_refused(
    tmp_path: Path, write_image: Callable[..., Path], source: str
) -> None:
    writer, box = WRITERS[source], (1.0, 2.0, 30.0, 20.0)
    images = [write_image(tmp_path / writer.images / f"{name}.png", seed=name) for name in (0, 1)]
    writer.write(tmp_path, [Photo(image, (40, 30), [("cat", box), ("dog", box)]) for image in images])
    files = sorted(file for file in tmp_path.rglob("*") if file.suffix in writer.texts)
    spoil(f"{source}:{tmp_path}", tmp_path, {str(file.relative_to(tmp_path)): content_of(file) for file in files})


def content_of(file: Path) -> Any:
    """Return the argument of `write`: the value of JSON, the first value of JSON lines, else the text."""
    text = file.read_text()
    return json.loads(text if file.suffix == ".json" else text.partition("\n")[0]) if "json" in file.suffix else text


IMAGE_FOLDERS = {"yolo": "images", "voc": "JPEGImages", "darknet": "obj_train_data"}


@pytest.mark.parametrize("source", SOURCES)
def test_a_spoiled_data_set_is_read_or_refused(
    tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, files = SOURCES[source]
    for name in ("0.png", "1.png"):
        write_image(tmp_path / IMAGE_FOLDERS.get(source, "") / name)
    spoil(spec, tmp_path, files)


def spoil(spec: str, folder: Path, files: Mapping[str, Any]) -> None:
    """Read a data set again and again, each time with another of its files spoiled."""
    for name, content in files.items():
        write(folder, name, content)
    assert refusal(spec) == []
    for seed in range(TRIES):
        rng = random.Random(f"{spec.partition(':')[0]} {seed}")
        name = rng.choice(list(files))
        write(folder, name, files[name], rng)
        try:
            problems = refusal(spec)
        except Exception as error:
            error.add_note(f"{spec}, seed {seed}: {(folder / name).read_bytes()[:2000]!r}")
            raise
        assert len(problems) < 20
        assert [problem for problem in problems if " at 0x" in problem or len(problem) > 2000] == []
        write(folder, name, files[name])


def refusal(spec: str) -> list[str]:
    """The problems for which a data set is refused; none where it is read, and the doctor can count its boxes."""
    try:
        for rows in load_data(spec).values():
            statistics_of(rows)
    except InputError as error:
        return error.problems
    return []


@pytest.mark.parametrize("source", SOURCES)
def test_no_object_of_a_spoiled_value_is_lost_without_a_problem(
    tmp_path: Path, write_image: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.chdir(tmp_path)
    spec, files = SOURCES[source]
    for name in ("0.png", "1.png"):
        write_image(tmp_path / IMAGE_FOLDERS.get(source, "") / name)
    for name, content in files.items():
        write(tmp_path, name, content)
    total = num_objects(load_data(spec))
    assert total
    for seed in range(TRIES):
        rng = random.Random(f"{source} {seed}")
        name = rng.choice(list(files))
        content = files[name]
        spoiled = spoiled_leaf(content, rng) if not isinstance(content, str) else spoiled_word(content, rng)
        write(tmp_path, name, spoiled)
        counted = num_objects_and_problems(spec)
        assert counted is None or counted[0] == total or counted[1], (seed, (tmp_path / name).read_bytes()[:2000])
        write(tmp_path, name, content)


def num_objects_and_problems(spec: str) -> tuple[int, int] | None:
    """The numbers of objects and of problems of a data set, None where it is refused."""
    try:
        data = load_source_data(spec)
    except InputError:
        return None
    return num_objects(data.splits), len(data.problems)


def num_objects(splits: DatasetDict) -> int:
    return sum(len(objects["bbox"]) for rows in splits.values() for objects in rows["objects"])


def spoiled_leaf(value: Any, rng: random.Random) -> Any:
    """A value of JSON of which one leaf is replaced, never left out."""
    if not isinstance(value, (dict, list)) or not value:
        return rng.choice(VALUES)
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    copy[key] = spoiled_leaf(copy[key], rng)
    return copy


def spoiled_word(text: str, rng: random.Random) -> str:
    """A text of which one word is replaced by another without spaces."""
    place = rng.choice([*re.finditer(r"[^\s,]+", text)])
    others = [word for word in (*NUMBERS, *WORDS) if word and not set(word) & {" ", "\0", "\u2028"}]
    return f"{text[: place.start()]}{rng.choice(others)}{text[place.end() :]}"


def test_a_spoiled_tar_file_is_read_or_refused(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    images = [write_image(tmp_path / "originals" / f"{seed}.png", seed=seed) for seed in (0, 1)]
    photos = [
        Photo(image, (40, 30), [("cat", (1.0, 2.0, 30.0, 20.0)), ("dog", (1.0, 2.0, 9.0, 9.0))]) for image in images
    ]
    WRITERS["webdataset"].write(tmp_path / "data", photos)
    (file,) = (tmp_path / "data").iterdir()
    valid = file.read_bytes()
    annotations = re.search(rb'{"width.*?}}', valid)
    assert annotations
    for seed in range(TRIES):
        rng = random.Random(f"webdataset {seed}")
        data = bytearray(valid)
        if seed % 2:  # the numbers and names of an annotation, of the same length
            text = bytearray(annotations[0])
            for _ in range(rng.choice([1, 3])):
                text[rng.randrange(len(text))] = rng.choice(b'0{]",x\xff')
            data[annotations.start() : annotations.end()] = text
        else:
            start = rng.randrange(len(data))
            data[start : start + rng.choice([1, 9, 600])] = rng.choice([b"", rng.randbytes(9), b"\0" * 600])
        file.write_bytes(data)
        assert len(refusal(f"webdataset:{tmp_path / 'data'}")) < 20
