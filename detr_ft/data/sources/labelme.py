"""Read LabelMe: a JSON file of shapes for each image, beside it or below the same folder."""

from __future__ import annotations

import base64
import logging
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import ImageFinder, plain_path
from detr_ft.data.sources.json_files import json_tool, json_tool_of
from detr_ft.data.sources.listing import files_below, images_below, split_folders, split_of_folder
from detr_ft.data.sources.parsing import parse_flag, parse_json, parse_numbers, read_text
from detr_ft.data.sources.record import Flags, Record, to_dataset, used_names
from detr_ft.data.sources.shapes_to_boxes import box_around
from detr_ft.errors import InputError

_SHAPES_WITH_AREA = ("polygon", "rectangle", "mask")  # the points of a mask are the corners of its box

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or the first JSON file below a folder, was written by LabelMe."""
    files = files_below(path, {".json"}) if path.is_dir() else []
    first = next((file for file in files if file.is_file()), None)
    return (first is not None and json_tool(first) == "labelme") or json_tool_of(path) == "labelme"


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """Read a folder of LabelMe files, or one file; classes are sorted by name.

    Shapes of one label and group are one object, as in LabelMe's own converters. Points and lines have no area and are
    left out. If the image file is missing, the image in the JSON file is used.
    """
    files = _files(path)
    reader = _Reader(path if path.is_dir() else path.parent)
    splits = {split: reader.read_split(paths) for split, paths in files.items()}
    raise_all([*reader.problems, *reader.finder.all_missing(path)])
    if not any(splits.values()):
        raise InputError(f"{path}: no LabelMe files, expected a .json with shapes and imagePath for each image")
    reader.log_left_out(path, {record.path for records in splits.values() for record in records})
    return SourceData(to_dataset(splits, sorted(used_names(splits)), path))


def _files(path: Path) -> dict[str, list[Path]]:
    """Return the JSON files of each split: in the folders that are named after it, else all as train."""
    if path.is_file():
        return {split_of_folder(path.absolute().parent) or "train": [path]}
    files: dict[str, list[Path]] = {}
    for split, child in split_folders(path):
        files.setdefault(split, []).extend(files_below(child, {".json"}))
    all_files = files_below(path, {".json"})
    in_splits = sum(map(len, files.values()))
    if not in_splits:
        return {"train": all_files}
    if in_splits < len(all_files):
        log.warning("%s: %d JSON files outside of its splits' folders are left out", path, len(all_files) - in_splits)
    return files


@dataclass
class _Reader:
    """Converts files to records; counts problems, other files and shapes that are left out."""

    folder: Path
    problems: list[str] = field(default_factory=list)
    other_files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    merged: int = 0

    def __post_init__(self) -> None:
        self.finder = ImageFinder(self.folder)

    def read_split(self, files: list[Path]) -> list[Record]:
        """Return the records of the files that LabelMe wrote."""
        records: list[Record] = []
        for file in files:
            content = self._content(file)
            if content is None:
                continue
            record = self._record(content, file, len(records))
            self._add_shapes(record, content["shapes"], file)
            records.append(record)
        return records

    def log_left_out(self, origin: Path, labeled: set[Path]) -> None:
        """Log the numbers of shapes, files and images that are left out."""
        for kind, count in sorted(self.left_out.items()):
            log.warning("%s: %d shapes of type %s have no area and are left out", origin, count, kind)
        if self.other_files:
            log.warning(
                "%s: %d JSON files are not LabelMe's, the first is %s",
                origin,
                len(self.other_files),
                self.other_files[0],
            )
        if self.merged:
            log.info("%s: %d shapes were merged with others of their label and group", origin, self.merged)
        unlabeled = len(set(images_below(self.folder.absolute())) - labeled) if origin.is_dir() else 0
        if unlabeled:
            log.warning("%s: %d images have no JSON file and are left out", origin, unlabeled)

    def _content(self, file: Path) -> Mapping[str, object] | None:
        try:
            content = parse_json(read_text(file))
        except ValueError as error:
            self.problems.append(f"{file}: {error}")
            return None
        if not isinstance(content, dict) or "shapes" not in content:
            self.other_files.append(file)
            return None
        return content

    def _record(self, content: Mapping[str, object], file: Path, image_id: int) -> Record:
        path, embedded = self._image(content, file)
        stated = content.get("imageWidth"), content.get("imageHeight")
        record = Record.with_size(path, image_id, *stated, image=embedded or path)
        record.content = embedded
        return record

    def _image(self, content: Mapping[str, object], file: Path) -> tuple[Path, bytes | None]:
        """Return the path of the image, and the bytes in the JSON file if there is no file at that path."""
        stated = content.get("imagePath")
        name = (plain_path(stated) if isinstance(stated, str) else "") or f"{file.stem}.jpg"
        path = self.finder.locate(name, str(file), self.problems, near=file.parent)
        if path:
            return path, None
        data = content.get("imageData")
        if isinstance(data, str) and data:
            try:
                return (file.parent / name).absolute(), base64.b64decode(data, validate=True)
            except ValueError as error:
                self.problems.append(f"{file}: imageData must be base64 ({error})")
        return self.finder.find(name, str(file), self.problems, near=file.parent), None

    def _add_shapes(self, record: Record, shapes: object, file: Path) -> None:
        if not isinstance(shapes, list):
            self.problems.append(f"{file}: shapes must be a list")
            return
        objects: dict[tuple[object, ...], list[list[float]]] = {}
        difficult: set[tuple[object, ...]] = set()
        for index, shape in enumerate(shapes):
            points = self._points(shape, f"{file}: shape {index}")
            if points is None:
                continue
            group = shape.get("group_id")
            key: tuple[object, ...] = (shape["label"].strip(), index if group is None else f"group {group}")
            self.merged += key in objects
            objects.setdefault(key, []).extend(points)
            if parse_flag(shape.get("difficult"), "difficult", f"{file}: shape {index}", self.problems):
                difficult.add(key)
        for key, points in objects.items():
            record.add(box_around(points), str(key[0]), flags=Flags(difficult=key in difficult))

    def _points(self, shape: object, where: str) -> list[list[float]] | None:
        """Return points with the same box as the shape, None for a shape without area or with a problem."""
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            self.problems.append(f"{where} must have a label")
            return None
        kind, rows = str(shape.get("shape_type") or "polygon"), shape.get("points")
        if kind not in (*_SHAPES_WITH_AREA, "circle"):
            self.left_out[kind] += 1
            return None
        points = [parse_numbers(row, 2) for row in rows] if isinstance(rows, list) else []
        valid = [point for point in points if point]
        min_points = 3 if kind == "polygon" else 2
        if len(valid) < max(min_points, len(points)):
            self.problems.append(f"{where}: a {kind} must have at least {min_points} points of two numbers")
            return None
        return _around_circle(valid) if kind == "circle" else valid


def _around_circle(points: list[list[float]]) -> list[list[float]]:
    """Return two corners around a circle given by its center and a point on its edge."""
    (x, y), edge = points[:2]
    radius = math.dist((x, y), edge)
    return [[x - radius, y - radius], [x + radius, y + radius]]
