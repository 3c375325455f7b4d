"""Reads LabelMe: a JSON file of shapes for each image, beside it or below the same folder."""

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

_WITH_AREA = ("polygon", "rectangle", "mask")  # a mask's points are the corners of its box

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Whether a file, or the first JSON file below a folder, is LabelMe's."""
    files = files_below(path, {".json"}) if path.is_dir() else []
    first = next((file for file in files if file.is_file()), None)
    return (first is not None and json_tool(first) == "labelme") or json_tool_of(path) == "labelme"


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """The data set of a folder of LabelMe files, or of one; classes are sorted by name.

    Shapes of one label and group are one object, as LabelMe's own converters have it; points and lines have no area and
    are left out. Without an image file, the one inside the JSON file is taken.
    """
    files = _files(path)
    reader = _Reader(path if path.is_dir() else path.parent)
    splits = {split: reader.read_split(paths) for split, paths in files.items()}
    raise_all([*reader.problems, *reader.finder.nothing_found(path)])
    if not any(splits.values()):
        raise InputError(f"{path}: no LabelMe files found; expected a .json with shapes and imagePath for each image")
    reader.tell(path, {record.path for records in splits.values() for record in records})
    return SourceData(to_dataset(splits, sorted(used_names(splits)), path))


def _files(path: Path) -> dict[str, list[Path]]:
    """The JSON files of each split: in the folders that bear its name, else all are train."""
    if path.is_file():
        return {split_of_folder(path.absolute().parent) or "train": [path]}
    files: dict[str, list[Path]] = {}
    for split, child in split_folders(path):
        files.setdefault(split, []).extend(files_below(child, {".json"}))
    everything = files_below(path, {".json"})
    chosen = sum(map(len, files.values()))
    if not chosen:
        return {"train": everything}
    if chosen < len(everything):
        log.warning("%s: %d JSON files outside of its splits' folders are left out", path, len(everything) - chosen)
    return files


@dataclass
class _Reader:
    """Turns files into records, and keeps what is wrong and what is left out."""

    folder: Path
    problems: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    merged: int = 0

    def __post_init__(self) -> None:
        self.finder = ImageFinder(self.folder)

    def read_split(self, files: list[Path]) -> list[Record]:
        """The records of the files that are LabelMe's."""
        records: list[Record] = []
        for file in files:
            content = self._content(file)
            if content is None:
                continue
            record = self._record(content, file, len(records))
            self._add_shapes(record, content["shapes"], file)
            records.append(record)
        return records

    def tell(self, origin: Path, labelled: set[Path]) -> None:
        """Say on the log what was left out, with numbers."""
        for kind, count in sorted(self.left_out.items()):
            log.warning("%s: %d shapes of type %s have no area and are left out", origin, count, kind)
        if self.others:
            log.warning("%s: %d JSON files aren't LabelMe's, the first is %s", origin, len(self.others), self.others[0])
        if self.merged:
            log.info("%s: %d shapes were joined to others of their label and group", origin, self.merged)
        bare = len(set(images_below(self.folder.absolute())) - labelled) if origin.is_dir() else 0
        if bare:
            log.warning("%s: %d images have no JSON file and are left out", origin, bare)

    def _content(self, file: Path) -> Mapping[str, object] | None:
        try:
            content = parse_json(read_text(file))
        except ValueError as error:
            self.problems.append(f"{file}: {error}")
            return None
        if not isinstance(content, dict) or "shapes" not in content:
            self.others.append(file)
            return None
        return content

    def _record(self, content: Mapping[str, object], file: Path, image_id: int) -> Record:
        path, embedded = self._image(content, file)
        stated = content.get("imageWidth"), content.get("imageHeight")
        record = Record.sized(path, image_id, *stated, image=embedded or path)
        record.content = embedded
        return record

    def _image(self, content: Mapping[str, object], file: Path) -> tuple[Path, bytes | None]:
        """The image's file, or where it is nowhere the bytes in the JSON file and the path they would have."""
        stated = content.get("imagePath")
        name = (plain_path(stated) if isinstance(stated, str) else "") or f"{file.stem}.jpg"
        found = self.finder.locate(name, str(file), self.problems, near=file.parent)
        if found:
            return found, None
        data = content.get("imageData")
        if isinstance(data, str) and data:
            try:
                return (file.parent / name).absolute(), base64.b64decode(data, validate=True)
            except ValueError as error:
                self.problems.append(f"{file}: imageData is not base64 ({error})")
        return self.finder.find(name, str(file), self.problems, near=file.parent), None

    def _add_shapes(self, record: Record, shapes: object, file: Path) -> None:
        if not isinstance(shapes, list):
            self.problems.append(f"{file}: shapes must be a list")
            return
        objects: dict[tuple[object, ...], list[list[float]]] = {}
        difficult: set[tuple[object, ...]] = set()
        for index, shape in enumerate(shapes):
            points = self._outline(shape, f"{file}: shape {index}")
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

    def _outline(self, shape: object, where: str) -> list[list[float]] | None:
        """Points whose box is the shape's; None for one that has no area, or for a problem."""
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
            self.problems.append(f"{where} needs a label")
            return None
        kind, rows = str(shape.get("shape_type") or "polygon"), shape.get("points")
        if kind not in (*_WITH_AREA, "circle"):
            self.left_out[kind] += 1
            return None
        points = [parse_numbers(row, 2) for row in rows] if isinstance(rows, list) else []
        whole = [point for point in points if point]
        least = 3 if kind == "polygon" else 2
        if len(whole) < max(least, len(points)):
            self.problems.append(f"{where}: a {kind} needs {least} points of two numbers, at least")
            return None
        return _around_circle(whole) if kind == "circle" else whole


def _around_circle(points: list[list[float]]) -> list[list[float]]:
    """Two corners around a circle that is given by its centre and a point of its edge."""
    (x, y), edge = points[:2]
    radius = math.dist((x, y), edge)
    return [[x - radius, y - radius], [x + radius, y + radius]]
