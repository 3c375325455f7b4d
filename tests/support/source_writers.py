"""A small data set in the format of each source, written from one description: the contract of sources is tested with it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from datasets import ClassLabel, Dataset, Features, Image, List, Value

Box = tuple[float, float, float, float]  # xywh in pixels of the photo's size
UNKNOWN_CLASS = ""  # an object of this class is written with a class that is not declared, or with none


@dataclass(frozen=True)
class Photo:
    """An image file and its objects; the annotations state the size, except where it is not `stated`."""

    file: Path
    size: tuple[int, int]
    objects: Sequence[tuple[str, Box]] = ()
    stated: bool = True


@dataclass(frozen=True)
class Writer:
    """Writes photos as the train split of a data set in a folder, of which `images` is the subfolder of the image files.

    `texts` are the suffixes of its annotation files that are texts. A format that `embeds` images has no image files. One
    without `sizes` does not state the size of an image.
    """

    write: Callable[[Path, Sequence[Photo]], None]
    images: str = ""
    texts: Sequence[str] = ()
    embeds: bool = False
    sizes: bool = True


def _classes(photos: Sequence[Photo]) -> list[str]:
    return sorted({name for photo in photos for name, _ in photo.objects} - {UNKNOWN_CLASS})


def _write(file: Path, content: str | object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    file.write_text(text, encoding="utf-8")


def _stated(photo: Photo, width: str = "width", height: str = "height") -> dict[str, int]:
    return {width: photo.size[0], height: photo.size[1]} if photo.stated else {}


def _corners(box: Box) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x, y, x + w, y + h


def _write_coco(folder: Path, photos: Sequence[Photo]) -> None:
    ids = {name: number for number, name in enumerate(_classes(photos), start=1)}
    objects = [(photo, name, box) for photo in photos for name, box in photo.objects]
    content = {
        "images": [{"id": i, "file_name": photo.file.name, **_stated(photo)} for i, photo in enumerate(photos)],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [
            {"id": i, "image_id": photos.index(photo), "category_id": ids.get(name, 99), "bbox": box}
            for i, (photo, name, box) in enumerate(objects, start=1)
        ],
    }
    _write(folder / "labels.json", content)


def _write_voc(folder: Path, photos: Sequence[Photo]) -> None:
    for photo in photos:
        size = "".join(f"<{side}>{pixels}</{side}>" for side, pixels in _stated(photo).items())
        objects = "".join(
            f"<object><name>{escape(name)}</name><bndbox>"
            + "".join(
                f"<{key}>{value}</{key}>"
                for key, value in zip(("xmin", "ymin", "xmax", "ymax"), _corners(box), strict=True)
            )
            + "</bndbox></object>"
            for name, box in photo.objects
        )
        head = f"<filename>{escape(photo.file.name)}</filename><size>{size}</size>"
        _write(folder / "Annotations" / f"{photo.file.stem}.xml", f"<annotation>{head}{objects}</annotation>")


def _yolo_rows(photo: Photo, names: Sequence[str]) -> str:
    width, height = photo.size
    rows = []
    for name, (x, y, w, h) in photo.objects:
        number = names.index(name) if name in names else 99
        rows.append(f"{number} {(x + w / 2) / width} {(y + h / 2) / height} {w / width} {h / height}\n")
    return "".join(rows)


def _write_yolo(folder: Path, photos: Sequence[Photo]) -> None:
    names = _classes(photos)
    for photo in photos:
        _write(folder / "labels" / f"{photo.file.stem}.txt", _yolo_rows(photo, names))
    _write(folder / "data.yaml", f"train: images\nnames: {json.dumps(names, ensure_ascii=False)}\n")


def _write_labelme(folder: Path, photos: Sequence[Photo]) -> None:
    for photo in photos:
        shapes = [
            {"label": name, "points": [corners[:2], corners[2:]], "shape_type": "rectangle", "group_id": None}
            for name, corners in ((name, _corners(box)) for name, box in photo.objects)
        ]
        size = _stated(photo, "imageWidth", "imageHeight")
        content = {"version": "5.5.0", "shapes": shapes, "imagePath": photo.file.name, "imageData": None, **size}
        _write(folder / f"{photo.file.stem}.json", content)


def _write_labelstudio(folder: Path, photos: Sequence[Photo]) -> None:
    tasks = []
    for number, photo in enumerate(photos, start=1):
        scale = (100 / photo.size[0], 100 / photo.size[1]) * 2
        regions = [
            {
                "id": f"r{index}",
                "type": "rectanglelabels",
                **_stated(photo, "original_width", "original_height"),
                "value": {
                    **{
                        key: value * factor
                        for key, value, factor in zip(("x", "y", "width", "height"), box, scale, strict=True)
                    },
                    "rotation": 0,
                    "rectanglelabels": [name],
                },
            }
            for index, (name, box) in enumerate(photo.objects)
        ]
        upload = f"/data/upload/1/0123abcd-{photo.file.name}"
        tasks.append({"id": number, "data": {"image": upload}, "annotations": [{"id": number, "result": regions}]})
    _write(folder / "export.json", tasks)


def _write_cvat(folder: Path, photos: Sequence[Photo]) -> None:
    images = []
    for number, photo in enumerate(photos):
        size = "".join(f' {side}="{pixels}"' for side, pixels in _stated(photo).items())
        boxes = "".join(
            f"<box label={quoteattr(name)} "
            + " ".join(
                f'{key}="{value}"' for key, value in zip(("xtl", "ytl", "xbr", "ybr"), _corners(box), strict=True)
            )
            + "/>"
            for name, box in photo.objects
        )
        images.append(f'<image id="{number}" name={quoteattr(photo.file.name)}{size}>{boxes}</image>')
    _write(folder / "annotations.xml", f"<annotations><version>1.1</version>{''.join(images)}</annotations>")


def _write_csv(folder: Path, photos: Sequence[Photo]) -> None:
    stated = photos[0].stated
    lines = [f"filename,{'width,height,' if stated else ''}class,xmin,ymin,xmax,ymax"]
    for photo in photos:
        start = ",".join([photo.file.name, *(map(str, photo.size) if stated else ())])
        lines += [f"{start},{name},{','.join(map(str, _corners(box)))}" for name, box in photo.objects]
        lines += [] if photo.objects else [f"{start},,,,,"]
    _write(folder / "labels.csv", "\n".join(lines) + "\n")


def _write_folder(folder: Path, photos: Sequence[Photo]) -> None:
    rows = [
        {
            "file_name": photo.file.name,
            **_stated(photo),
            "objects": {
                "bbox": [box for _, box in photo.objects],
                "category": [name for name, _ in photo.objects],
            },
        }
        for photo in photos
    ]
    _write(folder / "metadata.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _table(photos: Sequence[Photo]) -> Dataset:
    names = _classes(photos)
    rows: dict[str, list[Any]] = {
        "image": [{"path": photo.file.name, "bytes": photo.file.read_bytes()} for photo in photos],
        **{side: [photo.size[i] for photo in photos] for i, side in enumerate(("width", "height")) if photos[0].stated},
        "objects": [
            {
                "bbox": [box for _, box in photo.objects],
                "category": [names.index(name) if name in names else -1 for name, _ in photo.objects],
            }
            for photo in photos
        ],
    }
    features = {
        "image": Image(),
        **({"width": Value("int64"), "height": Value("int64")} if photos[0].stated else {}),
        "objects": {"bbox": List(List(Value("float64"), length=4)), "category": List(ClassLabel(names=names))},
    }
    return Dataset.from_dict(rows, features=Features(features))


def _write_parquet(folder: Path, photos: Sequence[Photo]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _table(photos).to_parquet(folder / "train.parquet")


def _write_saved(folder: Path, photos: Sequence[Photo]) -> None:
    _table(photos).save_to_disk(folder)


def _write_darknet(folder: Path, photos: Sequence[Photo]) -> None:
    """CVAT 2.x, "YOLO 1.1"."""
    names = _classes(photos)
    for photo in photos:
        _write(folder / "obj_train_data" / f"{photo.file.stem}.txt", _yolo_rows(photo, names))
    _write(folder / "obj.names", "".join(f"{name}\n" for name in names))
    _write(folder / "train.txt", "".join(f"data/obj_train_data/{photo.file.name}\n" for photo in photos))
    settings = f"classes = {len(names)}\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    _write(folder / "obj.data", settings)


def _write_via(folder: Path, photos: Sequence[Photo]) -> None:
    """A project of VIA 2.0.12."""
    images = {}
    for photo in photos:
        size = photo.file.stat().st_size
        regions = [
            {
                "shape_attributes": {
                    "name": "rect",
                    **dict(zip(("x", "y", "width", "height"), box, strict=True)),
                },
                "region_attributes": {} if name == UNKNOWN_CLASS else {"class": name},
            }
            for name, box in photo.objects
        ]
        row = {"filename": photo.file.name, "size": size, "regions": regions, "file_attributes": {}}
        images[f"{photo.file.name}{size}"] = row
    content = {
        "_via_settings": {"ui": {}, "core": {"default_filepath": ""}, "project": {"name": "via_project"}},
        "_via_img_metadata": images,
        "_via_attributes": {"region": {"class": {"type": "text", "description": "", "default_value": ""}}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(images),
    }
    _write(folder / "via_project.json", content)


def _write_supervisely(folder: Path, photos: Sequence[Photo]) -> None:
    """A project in the layout of Supervisely's SDK 6.74."""
    classes = [
        {"title": name, "shape": "rectangle", "color": "#8A0F59", "geometry_config": {}, "id": 1 + number, "hotkey": ""}
        for number, name in enumerate(_classes(photos))
    ]
    _write(folder / "meta.json", {"classes": classes, "tags": [], "projectType": "images"})
    for photo in photos:
        objects = [
            {
                "id": number,
                "classId": 1,
                "description": "",
                "geometryType": "rectangle",
                "labelerLogin": "user",
                "createdAt": "2024-05-01T10:00:00.000Z",
                "updatedAt": "2024-05-01T10:00:00.000Z",
                "tags": [],
                "classTitle": name or "undeclared",
                "points": {"exterior": [_corners(box)[:2], _corners(box)[2:]], "interior": []},
            }
            for number, (name, box) in enumerate(photo.objects)
        ]
        content = {"description": "", "tags": [], "size": _stated(photo), "objects": objects}
        _write(folder / "ds0" / "ann" / f"{photo.file.name}.json", content)


def _write_datumaro(folder: Path, photos: Sequence[Photo]) -> None:
    """CVAT 2.x, "Datumaro 1.0"."""
    names = _classes(photos)
    items = []
    for number, photo in enumerate(photos):
        annotations = [
            {
                "id": index,
                "type": "bbox",
                "attributes": {"occluded": False, "rotation": 0.0},
                "group": 0,
                "label_id": names.index(name) if name in names else 99,
                "z_order": 0,
                "bbox": list(box),
            }
            for index, (name, box) in enumerate(photo.objects)
        ]
        size = {"size": [photo.size[1], photo.size[0]]} if photo.stated else {}
        image = {"path": photo.file.name, **size}
        items.append({"id": photo.file.stem, "annotations": annotations, "attr": {"frame": number}, "image": image})
    labels = [{"name": name, "parent": "", "attributes": []} for name in names]
    content = {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": ["occluded"]}},
        "items": items,
    }
    _write(folder / "annotations" / "default.json", content)


def _write_kitti(folder: Path, photos: Sequence[Photo]) -> None:
    for photo in photos:
        rows = [
            f"{name} 0.00 0 0.00 {' '.join(map(str, _corners(box)))} 0.00 0.00 0.00 0.00 0.00 0.00 0.00\n"
            for name, box in photo.objects
        ]
        _write(folder / "training" / "label_2" / f"{photo.file.stem}.txt", "".join(rows))


def _write_manifest(folder: Path, photos: Sequence[Photo]) -> None:
    """The output of a bounding box job of Amazon SageMaker Ground Truth."""
    names = _classes(photos)
    rows = []
    for photo in photos:
        annotations = [
            {
                "class_id": names.index(name) if name in names else 99,
                **dict(zip(("left", "top", "width", "height"), box, strict=True)),
            }
            for name, box in photo.objects
        ]
        sizes = [{**_stated(photo), "depth": 3}]
        metadata = {
            "objects": [{"confidence": 0.5} for _ in photo.objects],
            "class-map": {str(number): name for number, name in enumerate(names)},
            "type": "groundtruth/object-detection",
            "human-annotated": "yes",
            "creation-date": "2024-05-01T10:00:00.527256",
            "job-name": "labeling-job/animals",
        }
        address = f"s3://bucket/images/{photo.file.name}"
        rows.append(
            {
                "source-ref": address,
                "animals": {"image_size": sizes, "annotations": annotations},
                "animals-metadata": metadata,
            }
        )
    _write(folder / "output.manifest", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_webdataset(folder: Path, photos: Sequence[Photo]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "train-000000.tar", "w") as tar:
        for photo in photos:
            objects = {"bbox": [box for _, box in photo.objects], "category": [name for name, _ in photo.objects]}
            content = json.dumps({**_stated(photo), "objects": objects}, ensure_ascii=False).encode()
            for name, data in ((photo.file.name, photo.file.read_bytes()), (f"{photo.file.stem}.json", content)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


# A source of files without a writer fails the contract.
WRITERS = {
    "coco": Writer(_write_coco, texts=(".json",)),
    "voc": Writer(_write_voc, images="JPEGImages", texts=(".xml",)),
    "yolo": Writer(_write_yolo, images="images", texts=(".txt", ".yaml")),
    "labelme": Writer(_write_labelme, texts=(".json",)),
    "labelstudio": Writer(_write_labelstudio, texts=(".json",)),
    "cvat": Writer(_write_cvat, images="images", texts=(".xml",)),
    "csv": Writer(_write_csv, texts=(".csv",)),
    "folder": Writer(_write_folder, texts=(".jsonl",)),
    "parquet": Writer(_write_parquet, embeds=True),
    "saved": Writer(_write_saved, embeds=True),
    "hub": Writer(_write_parquet, embeds=True),
    "darknet": Writer(_write_darknet, images="obj_train_data", texts=(".names", ".data"), sizes=False),
    "via": Writer(_write_via, texts=(".json",), sizes=False),
    "supervisely": Writer(_write_supervisely, images="ds0/img", texts=(".json",)),
    "datumaro": Writer(_write_datumaro, images="images/default", texts=(".json",)),
    "kitti": Writer(_write_kitti, images="training/image_2", texts=(".txt",), sizes=False),
    "manifest": Writer(_write_manifest, images="images", texts=(".manifest",)),
    "webdataset": Writer(_write_webdataset, embeds=True),
}
