"""Read COCO JSON: one file, a folder for each split (Roboflow), or `annotations/instances_*.json`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.image_finder import ImageFinder, fullest_folder, image_root, plain_path
from detr_ft.data.sources.json_files import json_by_split, json_tool_of
from detr_ft.data.sources.listing import split_folders, split_of, split_of_file
from detr_ft.data.sources.parsing import is_id, parse_flag, parse_json, parse_numbers, read_text, shown
from detr_ft.data.sources.record import Flags, Record, raise_with_faults, to_dataset
from detr_ft.data.sources.shapes_to_boxes import box_around_segmentation
from detr_ft.errors import InputError

_FLAGS = ("iscrowd", "difficult", "truncated")

_Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or a file of the splits of a folder, is COCO JSON."""
    return json_tool_of(path) == "coco"


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """Read a COCO file or folder. Categories that no split uses are left out and logged.

    Category ids may have gaps; classes are in the order of the ids, the same for all splits. An object without a bbox
    gets the box around its segmentation. Images that are not at their stated paths are searched for below the file.
    """
    paths = _files(path)
    if not paths:
        raise InputError(
            f"{path}: no COCO file, expected <split>/_annotations.coco.json or annotations/instances_<split>.json. "
            "Name the file, as in coco:FILE"
        )
    files = {split: CocoFile(file) for split, file in paths.items()}
    problems = [problem for file in files.values() for problem in file.read()]
    splits = {split: list(file.records.values()) for split, file in files.items()}
    raise_with_faults(problems, splits)
    data = to_dataset(splits, _used_names(files.values(), path), path)
    return SourceData(data, _categories(files.values()))


def read_categories(path: Path) -> dict[int, str]:
    """Return the category names of a valid COCO file or folder by their ids."""
    files = [CocoFile(file) for file in _files(path).values()]
    for file in files:
        file.read_categories()
    return _categories(files)


def _files(path: Path) -> dict[str, Path]:
    return {split_of_file(path): path} if path.is_file() else json_by_split(path)


def _categories(files: Iterable[CocoFile]) -> dict[int, str]:
    return {number: name for file in files for number, name in file.categories.items()}


def _used_names(files: Iterable[CocoFile], path: Path) -> list[str]:
    files = list(files)
    names = dict.fromkeys(name for file in files for _, name in sorted(file.categories.items()))
    used = {name for file in files for record in file.records.values() for name in record.names if name}
    unused = [name for name in names if name not in used]
    if not used:
        return list(names)
    if unused:
        log.info("%s: unused categories are left out: %s", path, ", ".join(unused))
    return [name for name in names if name in used]


@dataclass
class CocoFile:
    """A COCO file: its categories (name by id), records (by image id) and problems."""

    file: Path
    categories: dict[int, str] = field(default_factory=dict)
    records: dict[int, Record] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def read(self) -> list[str]:
        """Fill categories and records. Return the problems, each with the file and the id."""
        content = self.read_categories()
        if content is None:
            return self.problems
        self._log_shared_names()
        self._add_images(self._rows(content, "images"))
        if "annotations" not in content and "images" in content:
            log.warning("%s: has no annotations; all of its images are read as images without objects", self.file)
            return self.problems
        seen_ids: set[object] = set()
        for row in self._rows(content, "annotations"):
            self._add_annotation(row, seen_ids)
        return self.problems

    def read_categories(self) -> _Row | None:
        """Fill the categories. Return the content of the file, None if it is no JSON mapping."""
        try:
            content = parse_json(read_text(self.file))
        except ValueError as error:
            self.problems.append(f"{self.file}: {error}")
            return None
        if not isinstance(content, dict):
            self.problems.append(
                f"{self.file}: not a COCO file, must be a mapping with images, annotations and categories"
            )
            return None
        for row in self._rows(content, "categories"):
            self._add_category(row)
        return content

    def _rows(self, content: _Row, key: str) -> list[_Row]:
        rows = content.get(key)
        if not isinstance(rows, list):
            self.problems.append(f"{self.file}: not a COCO file, {key!r} must be a list")
            return []
        wrong = [i for i, row in enumerate(rows) if not isinstance(row, dict)]
        self.problems.extend(f"{self.file}: {key}[{i}] must be a mapping" for i in wrong)
        return [row for row in rows if isinstance(row, dict)]

    def _add_category(self, row: _Row) -> None:
        number, name = _parse_id(row.get("id")), row.get("name")
        name = name.strip() if isinstance(name, str) else ""
        if number is None or not name:
            self.problems.append(
                f"{self.file}: category {shown(row.get('id'))} must have a whole number as id and a name"
            )
        elif self.categories.get(number, name) != name:
            self.problems.append(f"{self.file}: category id {number} has two names. Use one id for each category")
        else:
            self.categories[number] = name

    def _log_shared_names(self) -> None:
        ids: dict[str, list[int]] = {}
        for number, name in sorted(self.categories.items()):
            ids.setdefault(name, []).append(number)
        for name, several in ids.items():
            if len(several) > 1:
                numbered = ", ".join(map(str, several))
                log.warning("%s: categories %s have the same name %r and become one class", self.file, numbered, name)

    def _add_images(self, rows: list[_Row]) -> None:
        folder, hits = fullest_folder([_file_name(row) for row in rows], self._image_folders())
        # If most images of a sample are in a folder, the others are missing: a search could find those of another split.
        finder = None if hits > 0.5 else ImageFinder(folder if hits else image_root(self.file))
        for row in rows:
            self._add_image(row, folder, finder)
        if finder and finder.all_missing(self.file):
            searched = ", ".join(map(str, dict.fromkeys(self._image_folders())))
            self.problems.append(
                f"{self.file}: its images are in none of these folders: {searched}, nor below {finder.root}. "
                "Put them in one of these"
            )

    def _image_folders(self) -> list[Path]:
        parent, root, stem = self.file.parent, self.file.parent.parent, self.file.stem.removeprefix("instances_")
        split = split_of(self.file.stem)
        near = [parent, parent / "images", parent / stem, *_folders_of(parent, split)]
        return [
            *near,
            root / stem,
            root / "images" / stem,
            root / "images",
            *_folders_of(root, split),
            root,
        ]

    def _add_image(self, row: _Row, folder: Path, finder: ImageFinder | None) -> None:
        number, name = _parse_id(row.get("id")), _file_name(row)
        if number is None:
            self.problems.append(f"{self.file}: image id {shown(row.get('id'))} must be a whole number")
        elif not name and any(row.get(key) for key in ("coco_url", "flickr_url")):
            self.problems.append(
                f"{self.file}: image {number} has only a URL and no file_name. Download the images and add the name of "
                "each as file_name"
            )
        elif not name:
            self.problems.append(f"{self.file}: image {number} has no file_name")
        elif number in self.records:
            self.problems.append(f"{self.file}: image id {number} occurs twice, must be unique")
        else:
            where = f"{self.file}: image {number}"
            path = finder.find(name, where, self.problems) if finder else (folder / name).absolute()
            self.records[number] = Record.with_size(path, number, row.get("width"), row.get("height"))

    def _add_annotation(self, row: _Row, seen_ids: set[object]) -> None:
        number = row.get("id")
        where = f"{self.file}: annotation {shown(number)}"
        image_id, category = _parse_id(row.get("image_id")), _parse_id(row.get("category_id"))
        record = None if image_id is None else self.records.get(image_id)
        name = None if category is None else self.categories.get(category)
        if isinstance(number, (str, int, float)):
            if str(number) in seen_ids:
                self.problems.append(f"{where}: the id occurs twice, must be unique")
            seen_ids.add(str(number))
        if record is None:
            self.problems.append(f"{where}: image {shown(row.get('image_id'))} is not among the file's images")
        fault = "" if name else f"{where}: category {shown(row.get('category_id'))} is not among the file's categories"
        box = self._box(row, where)
        if record and box:
            area = parse_numbers([row.get("area")], 1)
            flags = Flags(*(parse_flag(row.get(key), key, where, self.problems) for key in _FLAGS))
            record.add(
                box,
                name or "",
                area=area[0] if area else None,
                annotation_id=_parse_id(number),
                flags=flags,
                fault=fault,
            )
        elif fault:
            self.problems.append(fault)

    def _box(self, row: _Row, where: str) -> list[float] | None:
        """Return the bbox, or if there is none the box around the segmentation."""
        stated, shape = row.get("bbox"), row.get("segmentation")
        if stated or not shape:
            box = parse_numbers(stated, 4)
            wrong = f"bbox must be [x, y, width, height], got {shown(stated)}"
        else:
            box = box_around_segmentation(shape)
            wrong = "has no bbox, and its segmentation must be polygons or a run-length encoded mask with pixels"
        if box is None:
            self.problems.append(f"{where}: {wrong}")
        return box


def _parse_id(value: object) -> int | None:
    """Return an id as a whole number. Tools that store tables also write "12" and 12.0."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit() and len(value) < 20:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and is_id(value) else None


def _file_name(row: _Row) -> str:
    name = row.get("file_name")
    return plain_path(name) if isinstance(name, str) else ""


def _folders_of(parent: Path, split: str | None) -> Iterable[Path]:
    return (folder for word, folder in split_folders(parent) if word == split)
