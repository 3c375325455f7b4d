"""Read a Supervisely project: `meta.json`, and `ann/NAME.json` for each image `img/NAME`."""

from __future__ import annotations

import base64
import io
import logging
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from detr_ft.data.images import DECODE_ERRORS, MAX_PIXELS
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.json_files import json_tool
from detr_ft.data.sources.listing import files_below, name_splits, split_of_path
from detr_ft.data.sources.parsing import parse_json, parse_number, parse_numbers, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.recognition import most_common
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_mask, box_around_rotated
from detr_ft.errors import InputError

_META = "meta.json"
_ANNOTATIONS, _IMAGES = "ann", "img"
_WITHOUT_AREA = ("point", "line", "polyline")
_MAX_PNG_BYTES = 1 << 28

# Raised for damaged base64, zlib or PNG data.
_MASK_ERRORS = (*DECODE_ERRORS, Image.DecompressionBombError, Image.DecompressionBombWarning)

_Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a folder has `ann/*.json` of Supervisely, or such files and a `meta.json`."""
    files = _annotation_files(path) if path.is_dir() else []
    if not files:
        return False
    try:
        declared = _shapes_of_classes(path)
    except InputError:
        declared = {}
    return bool(declared) or most_common(files, json_tool) == "supervisely"


def read(folder: Path, options: ReadOptions) -> SourceData:
    """Read a project, or one of its data sets; classes are sorted by name.

    Every figure with an area is an object with the box around it; points and lines are left out. Data sets that are named
    after splits are these splits. Corners of rectangles are read as written.
    """
    files = _annotation_files(folder)
    if not files:
        raise InputError(f"{folder}: no project of Supervisely, expected meta.json and folders with img/ and ann/")
    of_folders = [split_of_path(file, folder) for file in files]
    has_splits = name_splits(of_folders)
    reasons: list[str] = []
    try:
        shapes = _shapes_of_classes(folder)
    except InputError as error:
        shapes, reasons = {}, error.problems
    reader = _Reader(folder, shapes, ImageFinder(folder, images=options.images))
    splits: dict[str, list[Record]] = {}
    for file, split in zip(files, of_folders, strict=True):
        records = splits.setdefault((has_splits and split) or "train", [])
        records.append(reader.read(file, len(records)))
    if reasons:
        raise_all(
            [*reasons, *(message for records in splits.values() for record in records for message in record.unreadable)]
        )
    raise_all(reader.finder.all_missing(folder))
    reader.finder.log_substitutes(folder)
    names = sorted(used_names(splits) - {""})
    split_by = "the names of the data sets" if has_splits else None
    return to_source_data(splits, names, folder, reader.problems, split_by=split_by)


def _annotation_files(folder: Path) -> list[Path]:
    return [file for file in files_below(folder, {".json"}) if file.parent.name == _ANNOTATIONS]


def _meta_file(folder: Path) -> Path | None:
    """Return the `meta.json` of a project or of the project of a data set, else None."""
    folders = (folder, folder.absolute().parent)
    return next((parent / _META for parent in folders if (parent / _META).is_file()), None)


def _shapes_of_classes(folder: Path) -> dict[str, str]:
    """Return the shape of each class that `meta.json` declares, none without it. Raises InputError."""
    file = _meta_file(folder)
    if file is None:
        return {}
    try:
        meta = parse_json(read_text(file))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error
    rows = meta.get("classes") if isinstance(meta, dict) else None
    if not isinstance(rows, list) or not rows:
        raise InputError(f"{file}: not the meta.json of a Supervisely project, must have classes")
    shapes = {
        row["title"]: str(row.get("shape"))
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("title"), str)
    }
    if len(shapes) < len(rows):
        raise InputError(f"{file}: each of the classes must have a title of its own")
    return shapes


@dataclass
class _Reader:
    """Converts annotation files to records; `problems` belong to no record."""

    folder: Path
    shapes: Mapping[str, str]
    finder: ImageFinder
    problems: list[Problem] = field(default_factory=list)

    def read(self, file: Path, image_id: int) -> Record:
        """Return the record of a file's image."""
        messages: list[str] = []
        image = file.parent.parent / _IMAGES / file.name.removesuffix(file.suffix)
        name = image.relative_to(self.folder).as_posix() if image.is_relative_to(self.folder) else image.name
        path = self.finder.find(name, str(file), messages)
        content = _content(file, messages)
        size = content.get("size")
        sides = (size.get("width"), size.get("height")) if isinstance(size, dict) else (None, None)
        record = Record.with_size(path, image_id, *sides)
        record.unreadable += messages
        objects = content.get("objects")
        for index, item in enumerate(objects if isinstance(objects, list) else []):
            self._add(record, item, f"{file}: object {index}")
        return record

    def _add(self, record: Record, item: object, where: str) -> None:
        title = item.get("classTitle") if isinstance(item, dict) else None
        if not isinstance(item, dict) or not isinstance(title, str) or not title:
            record.unreadable.append(f"{where}: must have a classTitle")
            return
        kind = self._kind(item, title)
        if kind in _WITHOUT_AREA:
            record.without_area.append(f"{where}: a {kind} has no area")
            return
        if kind not in _BOXES:
            record.unreadable.append(f"{where}: the shape {shown(kind)} is unknown, must be one of {', '.join(_BOXES)}")
            return
        box_of, needs = _BOXES[kind]
        box = box_of(item)
        declared = not self.shapes or title in self.shapes
        fault = "" if declared else f"{where}: class {shown(title)} is not among the classes of {_META}"
        if box is None:
            record.unreadable.append(f"{where}: a {kind} must have {needs}")
        else:
            record.add(box, title if declared else "", fault=fault)

    def _kind(self, item: _Row, title: str) -> str:
        """Return the shape of a figure. Older files do not state it; it is then that of the class."""
        stated = item.get("geometryType")
        of_class = self.shapes.get(title, "any")
        if isinstance(stated, str) and stated:
            return stated
        return of_class if of_class != "any" else "bitmap" if item.get("bitmap") else "polygon"


def _content(file: Path, messages: list[str]) -> _Row:
    """Return the content of an annotation file; what is wrong with it is added to `messages`."""
    try:
        content = parse_json(read_text(file))
    except ValueError as error:
        messages.append(f"{file}: {error}")
        return {}
    except InputError as error:
        messages += error.problems
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        messages.append(f"{file}: must have objects, a list, which is empty for an image without objects")
    return content if isinstance(content, dict) else {}


def _exterior(item: _Row) -> list[list[float]] | None:
    """Return the points of a figure's outline, None if one of them is invalid."""
    points = item.get("points")
    rows = points.get("exterior") if isinstance(points, dict) else points
    pairs = [parse_numbers(row, 2) for row in rows] if isinstance(rows, list) else []
    valid = [pair for pair in pairs if pair]
    return valid if valid and len(valid) == len(pairs) else None


def _of_rectangle(item: _Row) -> list[float] | None:
    points = _exterior(item)
    return box_around(points) if points and len(points) == 2 else None


def _of_oriented(item: _Row) -> list[float] | None:
    """Return the box around a rectangle, rotated clockwise about its center by an angle in radians."""
    box, angle = _of_rectangle(item), parse_number(item.get("angle", 0))
    if box is None or angle is None:
        return None
    return box_around_rotated(box, math.degrees(angle), (box[0] + box[2] / 2, box[1] + box[3] / 2))


def _of_polygon(item: _Row) -> list[float] | None:
    points = _exterior(item)
    return box_around(points) if points and len(points) >= 3 else None


def _of_bitmap(item: _Row) -> list[float] | None:
    """Return the box around a mask: a PNG in zlib and base64 with its upper left corner at `origin`."""
    mask = item.get("bitmap")
    origin = parse_numbers(mask.get("origin"), 2) if isinstance(mask, dict) else None
    data = mask.get("data") if isinstance(mask, dict) else None
    if origin is None or not all(map(math.isfinite, origin)) or not isinstance(data, str):
        return None
    try:
        png = zlib.decompressobj().decompress(base64.b64decode(data, validate=True), _MAX_PNG_BYTES)
        with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                return None
            bands = image.getchannel("A") if "A" in image.getbands() else image.convert("L")
            box = box_around_mask(np.asarray(bands) > 0)
    except _MASK_ERRORS:
        return None
    return None if box is None else [box[0] + origin[0], box[1] + origin[1], box[2], box[3]]


def _of_cuboid(item: _Row) -> list[float] | None:
    points = _exterior(item)
    return box_around(points) if points and len(points) >= 7 else None


def _of_nodes(item: _Row) -> list[float] | None:
    """Return the box around the corners of a cuboid or the nodes of a graph that are not disabled."""
    nodes = item.get("vertices") or item.get("nodes")
    rows = list(nodes.values()) if isinstance(nodes, dict) else nodes if isinstance(nodes, list) else []
    used = [row for row in rows if not (isinstance(row, dict) and row.get("disabled") is True)]
    points = [parse_numbers(row.get("loc"), 2) if isinstance(row, dict) else None for row in used]
    valid = [point for point in points if point]
    return box_around(valid) if valid and len(valid) == len(points) else None


_BOXES: Mapping[str, tuple[Callable[[_Row], list[float] | None], str]] = {
    "rectangle": (_of_rectangle, "two points in points.exterior"),
    "oriented_bbox": (_of_oriented, "two points and an angle"),
    "polygon": (_of_polygon, "at least 3 points in points.exterior"),
    "bitmap": (_of_bitmap, "a bitmap with data (a PNG with pixels, in zlib and base64) and origin"),
    "alpha_mask": (_of_bitmap, "a bitmap with data (a PNG with pixels, in zlib and base64) and origin"),
    "cuboid": (_of_cuboid, "7 points"),
    "cuboid_2d": (_of_nodes, "vertices with the numbers of loc"),
    "graph": (_of_nodes, "nodes with the numbers of loc"),
}
