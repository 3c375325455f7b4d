"""Read Label Studio's exports JSON and JSON-MIN: a list of tasks with one image each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.brush import box_around_brush
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.json_files import json_instead, json_tool, json_tool_of
from detr_ft.data.sources.listing import files_below, name_splits, split_of, split_of_path
from detr_ft.data.sources.parsing import (
    parse_flag,
    parse_json,
    parse_number,
    parse_numbers,
    parse_side,
    read_text,
    shown,
)
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Record, to_source_data, used_names
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_ellipse, box_around_rotated
from detr_ft.errors import InputError

# Answers about a region, which repeat its shape.
_REPEATED_SHAPES = ("choices", "datetime", "number", "rating", "taxonomy", "textarea")
_WITHOUT_AREA = ("keypointlabels", "keypoint", "vectorlabels", "vector")

Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or most JSON files of a folder, are exports of Label Studio."""
    return json_tool_of(path) == "labelstudio"


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a Label Studio export, or a folder with one for each split; classes are sorted by name.

    Every region with an area is an object with the box around it; points, choices and texts are left out. Of several
    annotations of a task, the newest one that is not canceled is used; a task without one is left out. If no task of a file
    has an annotation, their predictions are read in the same way, with a warning.
    """
    files, split_by = _files(path)
    splits: dict[str, list[Record]] = {}
    problems: list[Problem] = []
    reasons: list[str] = []
    for split, file in files:
        records = splits.setdefault(split, [])
        reader = _Reader(file, options.images)
        records.extend(reader.read(len(records)))
        reasons += [*reader.reasons, *reader.finder.all_missing(file)]
        problems += reader.problems
        reader.log_left_out()
        reader.finder.log_substitutes(file)
    raise_all(reasons)
    if not any(splits.values()):
        raise InputError(f"{path}: no annotated task.{json_instead(path)} Export the project from Label Studio as JSON")
    names = sorted(used_names(splits) - {""})
    return to_source_data(splits, names, path, problems, split_by=split_by)


def _files(path: Path) -> tuple[list[tuple[str, Path]], str | None]:
    """Return the exports with their splits, and what decides on the split: the names of several files."""
    if path.is_file():
        return [("train", path)], None
    tools = {file: json_tool(file) for file in files_below(path, {".json"})}
    files = [file for file, tool in tools.items() if tool == "labelstudio"]
    files = files or [file for file, tool in tools.items() if tool is None]
    splits = [split_of(file.stem) or split_of_path(file, path) for file in files]
    if not name_splits(splits):
        return [("train", file) for file in files], None
    return [(split or "train", file) for split, file in zip(splits, files, strict=True)], "the names of the files"


@dataclass
class _Reader:
    """Converts the tasks of a file to records.

    `reasons` are why the file is no export; `problems` belong to no record.
    """

    file: Path
    images: Path | None
    reasons: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    num_unannotated: int = 0
    num_reannotated: int = 0

    def __post_init__(self) -> None:
        self.finder = ImageFinder(self.file.parent, images=self.images)

    def read(self, first_id: int) -> Iterator[Record]:
        """Yield the records of the tasks, with image ids from `first_id`."""
        tasks = self._tasks()
        key = "annotations"
        if not any(_as_list(task.get(key)) for task in tasks) and any(
            _as_list(task.get("predictions")) for task in tasks
        ):
            key = "predictions"
            log.warning("%s: no task has an annotation; the predictions of a model are read instead", self.file)
        for number, task in enumerate(tasks):
            where = f"{self.file}: task {shown(task.get('id', number))}"
            annotation = self._newest(task, key)
            if annotation is None:
                continue
            regions: list[Row] = [row for row in _as_list(annotation.get("result")) if isinstance(row, dict)]
            record = self._record(task, regions, first_id, where)
            if record:
                yield record
                first_id += 1

    def log_left_out(self) -> None:
        """Log the numbers of regions, tasks and annotations that are left out."""
        for kind, count in sorted(self.left_out.items()):
            log.info("%s: %d regions are left out: %s", self.file, count, kind)
        if self.num_unannotated:
            log.warning("%s: %d tasks have no annotation and are left out", self.file, self.num_unannotated)
        if self.num_reannotated:
            message = "%s: %d tasks have several annotations; the newest one that is not canceled is used"
            log.warning(message, self.file, self.num_reannotated)

    def _tasks(self) -> list[Row]:
        try:
            content = parse_json(read_text(self.file))
        except ValueError as error:
            self.reasons.append(f"{self.file}: {error}")
            return []
        rows = content if isinstance(content, list) else []
        tasks: list[Row] = [row for row in rows if isinstance(row, dict) and "image_id" not in row]
        detections = "; this list has detections (COCO results)" if _is_results(rows) else ""
        if not tasks or len(tasks) < len(rows):
            self.reasons.append(
                f"{self.file}: not an export of Label Studio, must be a list of tasks, each with data{detections}"
            )
            return []
        return tasks if "data" in tasks[0] else _tasks_of_json_min(tasks)

    def _newest(self, task: Row, key: str) -> Row | None:
        annotations = [row for row in _as_list(task.get(key)) if isinstance(row, dict)]
        where = f"{self.file}: task {shown(task.get('id'))}"
        faults: list[str] = []
        valid = [
            annotation
            for annotation in annotations
            if not parse_flag(annotation.get("was_cancelled"), "was_cancelled", where, faults)
        ]
        self.problems += [Problem("unreadable annotation", fault) for fault in faults]
        self.num_unannotated += not valid
        self.num_reannotated += len(valid) > 1
        return max(valid, key=_last_change, default=None)

    def _record(self, task: Row, regions: list[Row], image_id: int, where: str) -> Record | None:
        name = _image_name(task.get("data"))
        if name is None:
            message = f"{where}: data must name an image"
            self.problems.append(Problem("lost annotation", message, count=len(regions)))
            return None
        problems: list[str] = []
        path = self._find(name, where, problems)
        size = next((size for region in regions if (size := _stated_size(region))), None)
        record = Record.with_size(path, image_id, *(size or (None, None)))
        record.unreadable += problems
        if any(map(_is_rotated, regions)):
            record.unreadable.append(
                f"{where}: the image is rotated (image_rotation), and the export does not define its boxes on the file's "
                "image. Rotate it back in Label Studio, check the boxes and export again"
            )
        labeled = {str(region.get("id")) for region in regions if _labels(region)}
        for index, region in enumerate(regions):
            # Choices and texts of a region repeat its shape under its id.
            if _labels(region) or region.get("id") is None or str(region["id"]) not in labeled:
                self._add(record, region, f"{where}: region {shown(region.get('id', index))}")
        return record

    def _find(self, name: str, where: str, problems: list[str]) -> Path:
        """Return the image of this name, or of the name without the hash that Label Studio prepends."""
        plain = PurePosixPath(name)
        prefix, dash, rest = plain.name.partition("-")
        if dash and rest and len(prefix) == 8 and set(prefix) <= set("0123456789abcdef"):
            without = str(plain.with_name(rest))
            if not self.finder.locate(name, where, []) and self.finder.locate(without, where, []):
                name = without
        return self.finder.find(name, where, problems)

    def _add(self, record: Record, region: Row, where: str) -> None:
        value, kind = region.get("value"), str(region.get("type"))
        if not isinstance(value, dict) or not _is_shape(value) or kind in _REPEATED_SHAPES:
            self.left_out[f"of type {kind}, which is no shape"] += 1
            return
        labels = _labels(region)
        if not labels:
            record.unreadable.append(f"{where}: a region of type {kind} must have a label")
            return
        if kind in _WITHOUT_AREA:
            record.without_area.append(f"{where}: a region of type {kind} has no area")
            return
        box = _box(value, *(_stated_size(region) or (record.width, record.height)))
        if box is None:
            record.unreadable.append(f"{where}: a region of type {kind} must have {_needs(value)}")
            return
        for label in labels:
            if isinstance(label, str) and label.strip():
                record.add(box, label)
            else:
                record.unreadable.append(f"{where}: a label must be text, got {shown(label)}")


def _is_rotated(region: Row) -> bool:
    """Return whether a region was drawn on a rotated image. A rotation that is no number counts as one."""
    degrees = parse_number(region.get("image_rotation") or 0)
    return degrees is None or degrees % 360 != 0


def _labels(region: Row) -> list[object]:
    """Return the classes of a region, under `rectanglelabels`, `polygonlabels` or `labels`."""
    value = region.get("value")
    fields = value if isinstance(value, dict) else {}
    return next((_as_list(fields[key]) for key in fields if key.endswith("labels")), [])


def _is_shape(value: Row) -> bool:
    return any(key in value for key in ("x", "points", "rle", "imageDataURL", "vertices"))


def _needs(value: Row) -> str:
    return "a run-length encoded mask with pixels" if "rle" in value else "numbers, in percent of the image"


def _box(value: Row, width: int, height: int) -> list[float] | None:
    """Return the box xywh in pixels around a region: a mask, or a shape in percent."""
    if "rle" in value:
        return box_around_brush(value["rle"], width, height)
    percent = _box_in_percent(value)
    if percent is None:
        return None
    degrees = parse_number(value.get("rotation") or 0)
    if degrees is None:
        return None
    x, y, w, h = percent
    box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
    if "radiusX" in value:
        return box_around_ellipse(box[0] + box[2] / 2, box[1] + box[3] / 2, box[2] / 2, box[3] / 2, degrees)
    return box_around_rotated(box, degrees, (box[0], box[1]))


def _box_in_percent(value: Row) -> list[float] | None:
    """Return the box xywh around a polygon, an ellipse or a rectangle before its rotation."""
    if "points" in value:
        points = [parse_numbers(point, 2) for point in _as_list(value["points"])]
        valid = [point for point in points if point]
        return box_around(valid) if len(valid) == len(points) >= 3 else None
    if "radiusX" in value:
        ellipse = parse_numbers([value.get(key) for key in ("x", "y", "radiusX", "radiusY")], 4)
        return None if ellipse is None else box_around_ellipse(*ellipse)
    return parse_numbers([value.get(key) for key in ("x", "y", "width", "height")], 4)


def _stated_size(region: Row) -> tuple[int, int] | None:
    width, height = parse_side(region.get("original_width")), parse_side(region.get("original_height"))
    return (width, height) if width and height else None


def _last_change(annotation: Row) -> tuple[str, int]:
    number = annotation.get("id")
    time = annotation.get("updated_at") or annotation.get("created_at")
    return str(time or ""), number if isinstance(number, int) else 0


def _tasks_of_json_min(rows: list[Row]) -> list[Row]:
    """Convert JSON-MIN, a row for each annotation, to the tasks of JSON."""
    tasks: dict[object, dict[str, object]] = {}
    for number, row in enumerate(rows):
        regions = [
            {"type": key, "value": region, **region}
            for key, value in row.items()
            for region in _as_list(value)
            if isinstance(region, dict)
        ]
        task = tasks.setdefault(str(row.get("id", f"row {number}")), {"id": row.get("id", number), "data": row})
        annotations = _as_list(task.setdefault("annotations", []))
        annotations.append({**row, "id": row.get("annotation_id"), "result": regions})
    return list(tasks.values())


def _image_name(data: object) -> str | None:
    """Return the image's path in the data of a task: `image`, else the first text with an image suffix."""
    fields = data if isinstance(data, dict) else {}
    texts = [fields.get("image"), *fields.values()]
    names = [_path_of(text) for text in texts if isinstance(text, str) and text]
    return next((name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES), None)


def _path_of(address: str) -> str:
    """Return the path in a URL. Local storage has `/data/local-files/?d=PATH`."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:  # no URL
        return address
    local = parse_qs(parts.query).get("d")
    return (local[0] if local else unquote(parts.path)).lstrip("/")


def _is_results(rows: list[object]) -> bool:
    """Return whether a list has detections in COCO's results format."""
    return bool(rows) and isinstance(rows[0], dict) and "image_id" in rows[0]


def _as_list(value: object) -> list[object]:
    """Return a list as it is, an empty list for anything else."""
    return value if isinstance(value, list) else []
