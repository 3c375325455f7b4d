"""Read LabelMe and X-AnyLabeling: a JSON file of shapes for each image, below one folder."""

from __future__ import annotations

import base64
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import FolderIndex, ImageFinder, plain_path
from detr_ft.data.sources.json_files import json_tool_of
from detr_ft.data.sources.listing import files_below, name_splits, split_of_path
from detr_ft.data.sources.parsing import parse_flag, parse_json, parse_numbers, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Flags, Record
from detr_ft.data.sources.shapes_to_boxes import box_around
from detr_ft.errors import InputError

_WITHOUT_AREA = ("point", "points", "line", "linestrip")
_KEYS = ("shapes", "imagePath", "imageData", "imageHeight")  # at least one is in a file of LabelMe

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or most JSON files below a folder, were written by LabelMe."""
    return json_tool_of(path) == "labelme"


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a folder of LabelMe files, or one file; classes are sorted by name.

    Every shape with an area is an object with the box around it. Shapes of one label and group are one object, as in
    LabelMe's own converters. Points and lines have no area and are left out. If the image file is missing, the image in
    the JSON file is used.
    """
    files, split_by = _files(path)
    reader = _Reader(path if path.is_dir() else path.parent, options.images)
    splits = {split: reader.read_split(paths) for split, paths in files.items()}
    raise_all(reader.finder.all_missing(path))
    if not any(splits.values()):
        raise InputError(
            [f"{path}: no LabelMe files, expected a .json with shapes and imagePath for each image",
             *(problem.message for problem in reader.problems)]
        )  # fmt: skip
    reader.log_notes(path)
    names = sorted(used_names(splits) - {""})
    return to_source_data(splits, names, path, reader.problems, split_by=split_by)


def _files(path: Path) -> tuple[dict[str, list[Path]], str | None]:
    """Return the JSON files of each split, and what decides on it: names of folders."""
    if path.is_file():
        return {"train": [path]}, None
    files = files_below(path, {".json"})
    of_folders = [split_of_path(file, path) for file in files]
    if not name_splits(of_folders):
        return {"train": files}, None
    splits: dict[str, list[Path]] = {}
    for split, file in zip(of_folders, files, strict=True):
        splits.setdefault(split or "train", []).append(file)
    return splits, "the folders of the JSON files"


@dataclass
class _Reader:
    """Converts files to records; collects problems of no record, and other files."""

    folder: Path
    images: Path | None
    problems: list[Problem] = field(default_factory=list)
    other_files: list[Path] = field(default_factory=list)
    merged: int = 0

    def __post_init__(self) -> None:
        self.finder = ImageFinder(self.folder, images=self.images)
        self._beside = FolderIndex(IMAGE_SUFFIXES)

    def read_split(self, files: list[Path]) -> list[Record]:
        """Return the records of the files that LabelMe wrote."""
        records: list[Record] = []
        for file in files:
            try:
                content = self._content(file)
            except (InputError, ValueError) as error:
                self._add_unreadable(records, file, error)
                continue
            if content is not None:
                record = self._record(content, file, len(records))
                self._add_shapes(record, content.get("shapes"), file)
                records.append(record)
        return records

    def log_notes(self, origin: Path) -> None:
        """Log the numbers of other files and merged shapes, and images under other names."""
        if self.other_files:
            log.warning(
                "%s: %d JSON files are not LabelMe's and are left out, the first is %s",
                origin, len(self.other_files), self.other_files[0],
            )  # fmt: skip
        if self.merged:
            log.info("%s: %d shapes were merged with others of their label and group", origin, self.merged)
        self.finder.log_substitutes(origin)

    def _add_unreadable(self, records: list[Record], file: Path, error: Exception) -> None:
        """Add a file that can't be read: to the record of its image if there is one beside it."""
        message = str(error) if isinstance(error, InputError) else f"{file}: {error}"
        image = self._beside.get(file.parent, file.name)
        if image is None:
            self.problems.append(Problem("lost annotation", message))
            return
        record = Record.with_size(image.absolute(), len(records))
        record.unreadable.append(message)
        records.append(record)

    def _content(self, file: Path) -> Mapping[str, object] | None:
        """Return the content of a file of LabelMe, None for another. Raises ValueError and InputError."""
        content = parse_json(read_text(file))
        if content == {} and self._beside.get(file.parent, file.name):
            raise ValueError("has no shapes. Write them again, or an empty list for an image without objects")
        if not isinstance(content, dict) or not any(key in content for key in _KEYS):
            self.other_files.append(file)
            return None
        return content

    def _record(self, content: Mapping[str, object], file: Path, image_id: int) -> Record:
        problems: list[str] = []
        path, embedded = self._image(content, file, problems)
        stated = content.get("imageWidth"), content.get("imageHeight")
        record = Record.with_size(path, image_id, *stated, image=embedded or path)
        record.content = embedded
        record.unreadable += problems
        name = plain_path(stated_name) if isinstance(stated_name := content.get("imagePath"), str) else ""
        record.stated = name if "/" in name or not name else f"{file.parent.name}/{name}"
        return record

    def _image(self, content: Mapping[str, object], file: Path, problems: list[str]) -> tuple[Path, bytes | None]:
        """Return the path of the image, and the bytes in the JSON file if there is no file at that path."""
        stated = content.get("imagePath")
        name = (plain_path(stated) if isinstance(stated, str) else "") or f"{file.stem}.jpg"
        path = self.finder.locate(name, str(file), problems, near=file.parent)
        if path:
            return path, None
        data = content.get("imageData")
        if isinstance(data, str) and data:
            try:
                return (file.parent / name).absolute(), base64.b64decode(data, validate=True)
            except ValueError as error:
                problems.append(f"{file}: imageData must be base64 ({error})")
        beside = self._beside.get(file.parent, file.name)  # LabelMe's own image, copied under another name
        if beside:
            self.finder.note_found()
            return beside.absolute(), None
        return self.finder.find(name, str(file), problems, near=file.parent), None

    def _add_shapes(self, record: Record, shapes: object, file: Path) -> None:
        if not isinstance(shapes, list):
            record.unreadable.append(f"{file}: must have shapes, a list, which is empty for an image without objects")
            return
        objects: dict[tuple[object, ...], list[list[float]]] = {}
        difficult: set[tuple[object, ...]] = set()
        for index, shape in enumerate(shapes):
            where = f"{file}: shape {index}"
            points = _points(shape, where, record)
            if points is None:
                continue
            group = shape.get("group_id")
            key: tuple[object, ...] = (shape["label"].strip(), index if group is None else f"group {shown(group)}")
            self.merged += key in objects
            objects.setdefault(key, []).extend(points)
            if parse_flag(shape.get("difficult"), "difficult", where, record.unreadable):
                difficult.add(key)
        for key, points in objects.items():
            record.add(box_around(points), str(key[0]), flags=Flags(difficult=key in difficult))


def _points(shape: object, where: str, record: Record) -> list[list[float]] | None:
    """Return points with the same box as the shape, None for a shape without area or with a problem."""
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        record.unreadable.append(f"{where}: must have a label")
        return None
    kind, rows = str(shape.get("shape_type") or "polygon"), shape.get("points")
    if kind in _WITHOUT_AREA:
        record.without_area.append(f"{where}: a {kind} has no area")
        return None
    points = [parse_numbers(row, 2) for row in rows] if isinstance(rows, list) else []
    valid = [point for point in points if point]
    min_points = 3 if kind == "polygon" else 2
    if len(valid) < max(min_points, len(points)):
        record.unreadable.append(f"{where}: a {kind} must have at least {min_points} points of two numbers")
        return None
    return _around_circle(valid) if kind == "circle" else valid


def _around_circle(points: list[list[float]]) -> list[list[float]]:
    """Return two corners around a circle given by its center and a point on its edge."""
    (x, y), edge = points[:2]
    radius = math.dist((x, y), edge)
    return [[x - radius, y - radius], [x + radius, y + radius]]
