"""Read Datumaro's JSON: in `annotations/` a file for each subset, with the annotations of its images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder, image_root
from detr_ft.data.sources.json_files import files_of_tool, json_tool_of
from detr_ft.data.sources.listing import files_below, files_by_split
from detr_ft.data.sources.parsing import parse_flag, parse_json, parse_numbers, parse_rotation, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Flags, Record
from detr_ft.data.sources.shapes_to_boxes import (
    box_around,
    box_around_ellipse,
    box_around_rotated,
    box_around_segmentation,
)
from detr_ft.errors import InputError

_WITHOUT_AREA = ("points", "polyline", "cuboid_3d")
_OF_IMAGES = ("label", "caption", "hash_key", "tabular", "feature_vector")  # describe an image, not an object
_PARTS_OF_MASKS = ("polygon", "mask")
_FLAGS = ("is_crowd", "difficult", "truncated")

_Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or most JSON files of a folder, were written by Datumaro."""
    return json_tool_of(path) == "datumaro"


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a file of Datumaro, or a folder with one for each subset.

    Classes are in the order of the labels. Every shape with an area is an object with the box around it; points and
    lines are left out. Polygons and masks of one label and group are one object, and so is a box in that group. Subsets
    that are named after a split are that split.
    """
    files = (
        {"train": [path]}
        if path.is_file()
        else files_by_split(files_of_tool(files_below(path, {".json"}), "datumaro"), path)
    )
    if not any(files.values()):
        raise InputError(f"{path}: no JSON file of Datumaro, expected annotations/SUBSET.json and images/")
    readers = {split: [_Reader(file, options.images) for file in some] for split, some in files.items()}
    splits = {split: [record for reader in some for record in reader.read()] for split, some in readers.items()}
    every = [reader for some in readers.values() for reader in some]
    raise_all([reason for reader in every for reason in reader.finder.all_missing(reader.file)])
    for reader in every:
        reader.finder.log_substitutes(reader.file)
    num_merged = sum(reader.num_merged for reader in every)
    if num_merged:
        log.info("%s: %d shapes were merged with others of their label and group", path, num_merged)
    for records in splits.values():
        for index, record in enumerate(records):
            record.image_id = index
    used = used_names(splits)
    names = [name for name in dict.fromkeys(name for reader in every for name in reader.labels) if name in used]
    problems = [problem for reader in every for problem in reader.problems]
    split_by = "the names of the subsets" if len(files) > 1 else None
    return to_source_data(splits, names, path, problems, split_by=split_by)


@dataclass
class _Shape:
    """A shape with an area: its kind, its class (empty if undeclared), its group (0 for none) and its box."""

    kind: str
    name: str
    group: object
    box: list[float]
    flags: Flags
    fault: str


@dataclass
class _Reader:
    """Converts a file to records; `problems` belong to no record."""

    file: Path
    images: Path | None
    labels: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    num_merged: int = 0

    def __post_init__(self) -> None:
        root = image_root(self.file)
        subset = self.file.stem
        folders = [root / "images" / subset, root / "images", root / subset, root]
        self.finder = ImageFinder(root, folders, images=self.images)

    def read(self) -> list[Record]:
        """Return a record for each item. Raises InputError for another kind of file."""
        try:
            content = parse_json(read_text(self.file))
        except ValueError as error:
            raise InputError(f"{self.file}: {error}") from error
        items = content.get("items") if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(items, list):
            raise InputError(f"{self.file}: not a JSON file of Datumaro, must have categories and a list of items")
        self.labels = self._labels(content.get("categories"))
        records = (self._record(item, f"{self.file}: image {index}") for index, item in enumerate(items))
        return [record for record in records if record]

    def _labels(self, categories: object) -> list[str]:
        label = categories.get("label") if isinstance(categories, dict) else None
        rows = label.get("labels") if isinstance(label, dict) else None
        names = [row.get("name") if isinstance(row, dict) else None for row in rows] if isinstance(rows, list) else []
        labels = [name for name in names if isinstance(name, str) and name]
        if not labels or len(set(labels)) < len(names):
            needs = "labels with different names" if labels else "the names of the classes"
            raise InputError(f"{self.file}: categories.label.labels must have {needs}")
        return labels

    def _record(self, item: object, where: str) -> Record | None:
        name = self._image_name(item) if isinstance(item, dict) else ""
        if not isinstance(item, dict) or not name:
            rows = item.get("annotations") if isinstance(item, dict) else None
            count = len(rows) if isinstance(rows, list) else 1
            self.problems.append(
                Problem("unreadable annotation", f"{where}: must have an id or image.path", count=count)
            )
            return None
        where = f"{where} ({item.get('id')})"
        messages: list[str] = []
        path = self.finder.find(name, where, messages)
        image = item.get("image")
        sides = parse_numbers(image.get("size"), 2) if isinstance(image, dict) else None
        height, width = sides or (None, None)
        record = Record.with_size(path, 0, width, height)
        record.doubts += messages
        record.stated = name
        rows = item.get("annotations")
        if not isinstance(rows, list):
            record.unreadable.append(
                f"{where}: must have annotations, a list, which is empty for an image without objects"
            )
            rows = []
        shapes = [self._shape(record, row, f"{where}, annotation {index}") for index, row in enumerate(rows)]
        self._add(record, [shape for shape in shapes if shape])
        return record

    def _image_name(self, item: _Row) -> str:
        """Return the path of an item's image, else its id, which is the path without suffix."""
        image = item.get("image")
        names = (image.get("path") if isinstance(image, dict) else None, item.get("id"))
        return next((name for name in names if isinstance(name, str) and name.strip()), "")

    def _shape(self, record: Record, row: object, where: str) -> _Shape | None:
        """Return the shape of an annotation, None for one that is no object, has no area or can't be read."""
        kind = row.get("type") if isinstance(row, dict) else None
        if kind in _OF_IMAGES:
            return None
        if kind in _WITHOUT_AREA:
            record.without_area.append(f"{where}: {kind} has no area in the image")
            return None
        if not isinstance(row, dict) or not isinstance(kind, str) or kind not in _BOXES:
            got = shown(kind) if isinstance(row, dict) else shown(row)
            record.unreadable.append(f"{where}: the type must be one of {', '.join(_BOXES)}, got {got}")
            return None
        box_of, needs = _BOXES[kind]
        box = box_of(row)
        if box is None:
            record.unreadable.append(f"{where}: the {kind} must have {needs}")
            return None
        number = row.get("label_id")
        known = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(self.labels)
        name = self.labels[number] if known and isinstance(number, int) else ""
        fault = "" if name else f"{where}: label_id {shown(number)} is not among the {len(self.labels)} labels"
        attributes = row.get("attributes")
        stated = attributes if isinstance(attributes, dict) else {}
        flags = Flags(*(parse_flag(stated.get(key), key, where, record.unreadable) for key in _FLAGS))
        return _Shape(kind, name, row.get("group") or 0, box, flags, fault)

    def _add(self, record: Record, shapes: list[_Shape]) -> None:
        """Add an object for each shape, or for the shapes of a label and group that are one instance."""
        groups: dict[object, list[_Shape]] = {}
        for index, shape in enumerate(shapes):
            is_single = not shape.name or not isinstance(shape.group, int) or shape.group == 0
            groups.setdefault(index if is_single else (shape.name, shape.group), []).append(shape)
        for group in groups.values():
            parts = [shape for shape in group if shape.kind in _PARTS_OF_MASKS]
            if parts and len(group) - len(parts) <= 1:
                corners = [point for shape in group for point in _corners(shape.box)]
                record.add(box_around(corners), group[0].name, flags=group[0].flags, fault=group[0].fault)
                self.num_merged += len(group) - 1
            else:
                for shape in group:
                    record.add(shape.box, shape.name, flags=shape.flags, fault=shape.fault)


def _corners(box: list[float]) -> list[list[float]]:
    x, y, w, h = box
    return [[x, y], [x + w, y + h]]


def _degrees(row: _Row) -> float | None:
    attributes = row.get("attributes")
    return parse_rotation(attributes.get("rotation")) if isinstance(attributes, dict) else 0.0


def _of_bbox(row: _Row) -> list[float] | None:
    """Return the box around a box xywh that is rotated about its center."""
    box, degrees = parse_numbers(row.get("bbox"), 4), _degrees(row)
    if box is None or degrees is None:
        return None
    return box_around_rotated(box, degrees, (box[0] + box[2] / 2, box[1] + box[3] / 2))


def _of_polygon(row: _Row) -> list[float] | None:
    return box_around_segmentation([row["points"]]) if isinstance(row.get("points"), list) else None


def _of_mask(row: _Row) -> list[float] | None:
    return box_around_segmentation(row["rle"]) if isinstance(row.get("rle"), dict) else None


def _of_ellipse(row: _Row) -> list[float] | None:
    """Return the box around an ellipse, given by two corners before its rotation."""
    corners, degrees = parse_numbers(row.get("points"), 4), _degrees(row)
    if corners is None or degrees is None:
        return None
    x0, y0, x1, y1 = corners
    return box_around_ellipse((x0 + x1) / 2, (y0 + y1) / 2, abs(x1 - x0) / 2, abs(y1 - y0) / 2, degrees)


def _of_cuboid(row: _Row) -> list[float] | None:
    """Return the box around the eight corners of a cuboid: pairs, or x, y, x, y, ..."""
    rows = row.get("points")
    if not isinstance(rows, list):
        return None
    flat = [value for item in rows for value in (item if isinstance(item, list) else [item])]
    numbers = parse_numbers(flat, 16)
    return numbers and box_around(list(zip(numbers[::2], numbers[1::2], strict=True)))


def _of_skeleton(row: _Row) -> list[float] | None:
    """Return the box around the points of a skeleton that are in the image (visibility 1 or 2)."""
    elements = row.get("elements")
    points: list[list[float]] = []
    for element in elements if isinstance(elements, list) else []:
        point = parse_numbers(element.get("points"), 2) if isinstance(element, dict) else None
        if point is None:
            return None
        if element.get("visibility") != [0]:
            points.append(point)
    return box_around(points) if points else None


_BOXES: Mapping[str, tuple[Callable[[_Row], list[float] | None], str]] = {
    "bbox": (_of_bbox, "the four numbers of bbox, and an attribute rotation in degrees or none"),
    "polygon": (_of_polygon, "points, as x, y, x, y, x, y"),
    "mask": (_of_mask, "an rle with size and counts, with at least one pixel"),
    "ellipse": (_of_ellipse, "the two corners of points, and an attribute rotation in degrees or none"),
    "cuboid_2d": (_of_cuboid, "the eight corners of points"),
    "skeleton": (_of_skeleton, "elements with points in the image"),
}
