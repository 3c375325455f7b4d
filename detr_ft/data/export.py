"""Write a data set as COCO files: images and one JSON file in a folder for each split."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.images import image_format
from detr_ft.data.schema import class_names, provenance
from detr_ft.errors import InputError
from detr_ft.utils.files import check_new_folder, writing


def write_coco(data: DatasetDict, folder: Path) -> None:
    """Write each split to `folder/<split>/`: the image files unchanged and `_annotations.coco.json`.

    `load_data` reads back equal data, except classes that no split uses, blanks around class names, and annotation ids
    that were not unique. The folder must be new or empty. Raises InputError, for missing image files before writing
    anything.
    """
    check_new_folder(folder)
    _check_files(data)
    for split, rows in data.items():
        with writing(folder / split):
            _write_split(rows, folder / split)


def _check_files(data: DatasetDict) -> None:
    """Raise InputError with all missing image files."""
    rows = (row for split in data.values() for row in split.select_columns(["image", "image_id"]))
    missing = [
        f"{provenance(row['image'], row['image_id'])}: the image file doesn't exist"
        for row in rows
        if row["image"]["bytes"] is None and not Path(row["image"]["path"] or "").is_file()
    ]
    if missing:
        raise InputError(missing)


def _write_split(rows: Dataset, folder: Path) -> None:
    folder.mkdir(parents=True)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    names = {"_annotations.coco.json"}
    for row in rows:
        name = _write_image(row["image"], row["image_id"], folder, names)
        images.append({"id": row["image_id"], "file_name": name, "width": row["width"], "height": row["height"]})
        annotations.extend(_annotations(row))
    if len({row["id"] for row in annotations}) < len(annotations):  # ids may be indices within an image
        annotations = [{**row, "id": number} for number, row in enumerate(annotations, start=1)]
    categories = [{"id": i, "name": name} for i, name in enumerate(class_names(rows), start=1)]
    content = {"info": {}, "licenses": [], "categories": categories, "images": images, "annotations": annotations}
    (folder / "_annotations.coco.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _annotations(row: Mapping[str, Any]) -> Iterator[dict[str, object]]:
    objects = row["objects"]
    columns = (objects["id"], objects["bbox"], objects["category"], objects["area"], objects["iscrowd"])
    flags = zip(objects["difficult"], objects["truncated"], strict=True)
    for number, box, category, area, crowd, (difficult, truncated) in zip(*columns, flags, strict=True):
        yield {
            "id": number,
            "image_id": row["image_id"],
            "category_id": category + 1,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
            **({"difficult": 1} if difficult else {}),  # of Pascal VOC; COCO has no such keys
            **({"truncated": 1} if truncated else {}),
        }


def _write_image(image: Mapping[str, Any], image_id: int, folder: Path, names: set[str]) -> str:
    """Copy the file, or write the bytes, under a name that differs from the others in more than case."""
    name = Path(image["path"]).name if image["path"] else f"{image_id:06d}{_suffix(image)}"
    while name.lower() in names:
        name = f"{image_id}_{name}"
    names.add(name.lower())
    if image["bytes"] is None:
        shutil.copyfile(image["path"], folder / name)
    else:
        (folder / name).write_bytes(image["bytes"])
    return name


def _suffix(image: Mapping[str, Any]) -> str:
    return f".{image_format(image).lower().replace('jpeg', 'jpg')}"
