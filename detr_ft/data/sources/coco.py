"""Reads COCO JSON: one file, a folder for each split (Roboflow), or `annotations/instances_*.json` (official)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.schema import SPLITS
from detr_ft.data.sources.records import (
    Flags,
    Record,
    is_id,
    measured_size,
    numbers,
    raise_all,
    read_text,
    split_folders,
    split_of,
    split_of_folder,
    stated_side,
    to_dataset,
)
from detr_ft.errors import UserError

log = logging.getLogger(__name__)


def read_coco(path: Path) -> DatasetDict:
    """The data set of a COCO file or folder. Categories that no split uses are left out, and said so.

    Category ids may have gaps; classes are numbered in the order of their ids, over all splits alike.
    """
    one = split_of(path.stem) or split_of_folder(path.parent) or "train"
    files = {one: path} if path.is_file() else coco_files(path)
    if not files:
        raise UserError(
            f"{path}: no COCO file found; expected <split>/_annotations.coco.json, annotations/instances_<split>.json "
            "or one .json file named outright"
        )
    tables = {split: _Table(file) for split, file in files.items()}
    problems = [problem for table in tables.values() for problem in table.read()]
    raise_all(problems)
    splits = {split: list(table.records.values()) for split, table in tables.items()}
    return to_dataset(splits, _used_names(tables.values(), path), path)


def coco_files(folder: Path) -> dict[str, Path]:
    """The COCO file of each split below a folder, in the layouts that are known; empty if there is none."""
    found: dict[str, Path] = {}
    for split, child in split_folders(folder):
        _take(
            found,
            split,
            [f for f in sorted(child.glob("*.json")) if f.name.endswith("coco.json") or f.stem == "annotations"],
        )
    if found:
        return found
    for place in (folder / "annotations", folder):
        files = sorted(place.glob("*.json"))
        instances = [f for f in files if f.name.startswith("instances")] or files
        for split in SPLITS:
            _take(found, split, [f for f in instances if split_of(f.stem) == split])
        if not found and len(instances) == 1:
            found["train"] = instances[0]
        if found:
            return found
    return found


def _take(found: dict[str, Path], split: str, files: list[Path]) -> None:
    files = [*([found[split]] if split in found else []), *files]
    if len(files) > 1:
        raise UserError(
            f"several COCO files for split {split}: {', '.join(map(str, files))}; name one of them outright"
        )
    if files:
        found[split] = files[0]


def _used_names(tables: Iterable[_Table], path: Path) -> list[str]:
    tables = list(tables)
    names = dict.fromkeys(name for table in tables for _, name in sorted(table.categories.items()))
    used = {name for table in tables for record in table.records.values() for name in record.names}
    unused = [name for name in names if name not in used]
    if not used:
        return list(names)
    if unused:
        log.info("%s: categories that no annotation uses are left out: %s", path, ", ".join(unused))
    return [name for name in names if name in used]


@dataclass
class _Table:
    """One COCO file on its way into records."""

    file: Path
    categories: dict[int, str] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def read(self) -> list[str]:
        """Fill categories and records; returns the problems found, each with the file and the id."""
        try:
            content = json.loads(read_text(self.file))
        except (json.JSONDecodeError, RecursionError) as error:
            return [f"{self.file}: not valid JSON ({error})"]
        if not isinstance(content, dict):
            return [f"{self.file}: not a COCO file: expected a mapping with images, annotations and categories"]
        for row in self._rows(content, "categories"):
            self._add_category(row)
        rows = self._rows(content, "images")
        folder = self._image_folder(rows)
        for row in rows:
            self._add_image(row, folder)
        seen: set[object] = set()
        for row in self._rows(content, "annotations"):
            self._add_annotation(row, seen)
        return self.problems

    def _rows(self, content: Mapping[str, object], key: str) -> list[dict[str, object]]:
        rows = content.get(key)
        if not isinstance(rows, list):
            self.problems.append(f"{self.file}: not a COCO file: {key!r} must be a list")
            return []
        wrong = [i for i, row in enumerate(rows) if not isinstance(row, dict)]
        self.problems.extend(f"{self.file}: {key}[{i}] must be a mapping" for i in wrong)
        return [row for row in rows if isinstance(row, dict)]

    def _image_folder(self, rows: list[dict[str, object]]) -> Path:
        """Where the images lie: the place that holds most of the first ones."""
        parent, root, stem = self.file.parent, self.file.parent.parent, self.file.stem.removeprefix("instances_")
        split = split_of(self.file.stem)
        near = [parent, parent / "images", parent / stem, *(p for s, p in split_folders(parent) if s == split)]
        above = [
            root / stem,
            root / "images" / stem,
            root / "images",
            *(p for s, p in split_folders(root) if s == split),
        ]
        places = [*near, *above, root]
        names = [_file_name(row) for row in rows[:20]]
        hits = [sum((place / name).is_file() for name in names) for place in places]
        if names and not max(hits):
            looked = ", ".join(dict.fromkeys(map(str, places)))
            self.problems.append(f"{self.file}: its images are in none of these folders: {looked}")
        return places[hits.index(max(hits))]

    def _add_category(self, row: Mapping[str, object]) -> None:
        number, name = row.get("id"), row.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or not name:
            self.problems.append(f"{self.file}: category {number!r} needs a whole number as id and a name")
        elif self.categories.get(number, name) != name:
            self.problems.append(f"{self.file}: category id {number} is given twice, with different names")
        else:
            self.categories[number] = name

    def _add_image(self, row: Mapping[str, object], folder: Path) -> None:
        number, name = row.get("id"), _file_name(row)
        if not isinstance(number, int) or not is_id(number):
            self.problems.append(f"{self.file}: image id {number!r} must be a whole number")
        elif not name:
            self.problems.append(f"{self.file}: image {number} has no file_name")
        elif number in self.records:
            self.problems.append(f"{self.file}: image id {number} is given twice; ids must be unique")
        else:
            width, height = stated_side(row.get("width")), stated_side(row.get("height"))
            if width is None or height is None:
                width, height = measured_size(folder / name)
            self.records[number] = Record((folder / name).absolute(), number, width, height)

    def _add_annotation(self, row: Mapping[str, object], seen: set[object]) -> None:
        number = row.get("id")
        where = f"{self.file}: annotation {number!r}"
        image_id, category = row.get("image_id"), row.get("category_id")
        record = self.records.get(image_id) if isinstance(image_id, int) else None
        name = self.categories.get(category) if isinstance(category, int) else None
        box = numbers(row.get("bbox"), 4)
        if number is not None and str(number) in seen:
            self.problems.append(f"{where}: the id is given twice; ids must be unique")
        seen.add(str(number))
        if record is None:
            self.problems.append(f"{where}: image {image_id!r} isn't among the file's images")
        if name is None:
            self.problems.append(f"{where}: category {category!r} isn't among the file's categories")
        if box is None:
            self.problems.append(f"{where}: bbox must be four numbers x, y, width, height; got {row.get('bbox')!r}")
        if record and name and box:
            area = row.get("area")
            record.add(
                box,
                name,
                area=float(area) if isinstance(area, (int, float)) else None,
                number=number if isinstance(number, int) and is_id(number) else None,
                flags=Flags(*(bool(row.get(key)) for key in ("iscrowd", "difficult", "truncated"))),
            )


def _file_name(row: Mapping[str, object]) -> str:
    name = row.get("file_name")
    return name.replace("\\", "/") if isinstance(name, str) else ""
