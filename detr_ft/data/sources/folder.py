"""Reads an image folder as `datasets` writes it: images beside a `metadata.jsonl` with `file_name` and `objects`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.sources.records import (
    Flags,
    Record,
    is_id,
    measured_size,
    numbers,
    raise_all,
    read_text,
    split_folders,
    stated_side,
    to_dataset,
)
from detr_ft.errors import UserError

CATEGORY_KEYS = ("category", "categories", "label", "labels", "category_id")


def read_folder(folder: Path) -> DatasetDict:
    """The data set of a folder with one `metadata.jsonl`, or one for each split; classes are sorted by name.

    A line holds `file_name` and `objects: {bbox, category}`, lists of equal length, COCO xywh in pixels; whole numbers as
    categories become the names "0", "1", ...; `width`, `height`, `image_id`, `area` and `iscrowd` are read where given.
    """
    files = metadata_files(folder) if folder.is_dir() else {"train": [folder]}
    if not files:
        raise UserError(f"{folder}: no metadata.jsonl found, neither there nor in train/, validation/, test/")
    problems: list[str] = []
    splits = {split: list(_read_files(paths, problems)) for split, paths in files.items()}
    raise_all(problems)
    names = {name for records in splits.values() for record in records for name in record.names}
    return to_dataset(splits, sorted(names, key=_natural), folder)


def metadata_files(folder: Path) -> dict[str, list[Path]]:
    """The `metadata.jsonl` files of each split below a folder; empty if there is none."""
    files: dict[str, list[Path]] = {}
    for split, child in split_folders(folder):
        if (child / "metadata.jsonl").is_file():
            files.setdefault(split, []).append(child / "metadata.jsonl")
    whole = folder / "metadata.jsonl"
    return files or ({"train": [whole]} if whole.is_file() else {})


def _natural(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def _read_files(paths: list[Path], problems: list[str]) -> Iterator[Record]:
    lines = [
        (path, number, line) for path in paths for number, line in enumerate(read_text(path).splitlines(), start=1)
    ]
    seen: set[int] = set()
    for image_id, (path, number, line) in enumerate(lines):
        where = f"{path}, line {number}"
        record = _read_line(line, path.parent, image_id, where, problems) if line.strip() else None
        if record is None:
            continue
        if record.image_id in seen:
            problems.append(f"{where}: image id {record.image_id} is given twice; ids must be unique")
        seen.add(record.image_id)
        yield record


def _read_line(line: str, folder: Path, image_id: int, where: str, problems: list[str]) -> Record | None:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        problems.append(f"{where}: not valid JSON ({error})")
        return None
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        problems.append(f"{where}: expected a mapping with file_name and objects")
        return None
    path = (folder / row["file_name"]).absolute()
    width, height = stated_side(row.get("width")), stated_side(row.get("height"))
    if width is None or height is None:
        width, height = measured_size(path)
    record = Record(path, row["image_id"] if is_id(row.get("image_id")) else image_id, width, height)
    add_objects(record, row.get("objects") or {}, where, problems)
    return record


def add_objects(record: Record, objects: Mapping[str, object], where: str, problems: list[str]) -> None:
    """Append the objects of a dictionary of lists (`bbox` and a category, by name or number) to the record."""
    key = next((key for key in CATEGORY_KEYS if isinstance(objects, dict) and key in objects), "category")
    boxes, names = (objects.get("bbox", []), objects.get(key, [])) if isinstance(objects, dict) else (None, None)
    if not isinstance(boxes, list) or not isinstance(names, list) or len(boxes) != len(names):
        problems.append(f"{where}: objects must hold the lists bbox and {key}, of the same length")
        return
    areas, crowd = objects.get("area"), objects.get("iscrowd")
    for index, (values, name) in enumerate(zip(boxes, names, strict=True)):
        box = numbers(values, 4)
        if box is None or not isinstance(name, (str, int)):
            problems.append(f"{where}: object {index} needs a bbox of four numbers and a {key}")
            continue
        area = numbers(areas[index : index + 1], 1) if isinstance(areas, list) else None
        is_crowd = isinstance(crowd, list) and index < len(crowd) and bool(crowd[index])
        record.add(box, str(name), area=area[0] if area else None, flags=Flags(crowd=is_crowd))
