"""Read Label Studio's exports JSON and JSON-MIN: a list of tasks with one image each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.json_files import json_tool_of
from detr_ft.data.sources.listing import files_below, split_of_file
from detr_ft.data.sources.parsing import (
    parse_flag,
    parse_json,
    parse_number,
    parse_numbers,
    parse_side,
    read_text,
    shown,
)
from detr_ft.data.sources.record import Record, to_dataset, used_names
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_rotated
from detr_ft.errors import InputError

_MAX_TASKS_LISTED = 50

Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or the first file of a folder's splits, is an export of Label Studio."""
    return json_tool_of(path) == "labelstudio"


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """Read a Label Studio export, or a folder with one for each split; classes are sorted by name.

    Rectangles (of rotated ones the box around them) and polygons become objects; other regions are left out. Of several
    annotations of a task, the newest one that is not canceled is used; a task without one is left out.
    """
    splits: dict[str, list[Record]] = {}
    problems: list[str] = []
    for file in [path] if path.is_file() else files_below(path, {".json"}):
        records = splits.setdefault(split_of_file(file.absolute()), [])
        reader = _Reader(file)
        records.extend(reader.read(len(records)))
        problems += [*reader.problems, *reader.rotation_problems(), *reader.finder.all_missing(file)]
        reader.log_left_out()
    raise_all(problems)
    if not any(splits.values()):
        raise InputError(f"{path}: no annotated task. Export the project from Label Studio as JSON")
    return SourceData(to_dataset(splits, sorted(used_names(splits)), path))


@dataclass
class _Reader:
    """Converts the tasks of a file to records; counts problems, and tasks and regions that are left out."""

    file: Path
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    num_unannotated: int = 0
    num_reannotated: int = 0
    rotated_tasks: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.finder = ImageFinder(self.file.parent)

    def read(self, first_id: int) -> Iterator[Record]:
        """Yield the records of the tasks, with image ids from `first_id`."""
        for number, task in enumerate(self._tasks()):
            name = shown(task.get("id", number))
            where = f"{self.file}: task {name}"
            annotation = self._newest(task)
            if annotation is None:
                continue
            regions: list[Row] = [row for row in _as_list(annotation.get("result")) if isinstance(row, dict)]
            record = self._record(task, regions, first_id, where)
            if any(map(_is_rotated, regions)):
                self.rotated_tasks.append(name)
            if record:
                yield record
                first_id += 1

    def rotation_problems(self) -> Iterator[str]:
        """Yield a problem for tasks with a rotated image: the export does not define their boxes."""
        if self.rotated_tasks:
            listed = ", ".join(self.rotated_tasks[:_MAX_TASKS_LISTED])
            more = (
                f" and {len(self.rotated_tasks) - _MAX_TASKS_LISTED} more"
                if len(self.rotated_tasks) > _MAX_TASKS_LISTED
                else ""
            )
            yield (
                f"{self.file}: the image is rotated (image_rotation) in tasks {listed}{more}, and the export does not "
                "define their boxes on the file's image. Rotate the images back in Label Studio, check the boxes and "
                "export again, or remove these tasks"
            )

    def log_left_out(self) -> None:
        """Log the numbers of regions, tasks and annotations that are left out."""
        for kind, count in sorted(self.left_out.items()):
            log.warning("%s: %d regions are left out: %s", self.file, count, kind)
        if self.num_unannotated:
            log.warning("%s: %d tasks have no annotation and are left out", self.file, self.num_unannotated)
        if self.num_reannotated:
            message = "%s: %d tasks have several annotations; the newest one that is not canceled is used"
            log.warning(message, self.file, self.num_reannotated)

    def _tasks(self) -> list[Row]:
        try:
            content = parse_json(read_text(self.file))
        except ValueError as error:
            self.problems.append(f"{self.file}: {error}")
            return []
        rows = content if isinstance(content, list) else []
        tasks: list[Row] = [row for row in rows if isinstance(row, dict) and "image_id" not in row]
        detections = "; this list has detections (COCO results)" if _is_results(rows) else ""
        if not tasks or len(tasks) < len(rows):
            self.problems.append(
                f"{self.file}: not an export of Label Studio, must be a list of tasks, each with data{detections}"
            )
            return []
        return tasks if "data" in tasks[0] else _tasks_of_json_min(tasks)

    def _newest(self, task: Row) -> Row | None:
        annotations = [row for row in _as_list(task.get("annotations")) if isinstance(row, dict)]
        where = f"{self.file}: task {shown(task.get('id'))}"
        valid = [
            annotation
            for annotation in annotations
            if not parse_flag(annotation.get("was_cancelled"), "was_cancelled", where, self.problems)
        ]
        self.num_unannotated += not valid
        self.num_reannotated += len(valid) > 1
        return max(valid, key=_last_change, default=None)

    def _record(self, task: Row, regions: list[Row], image_id: int, where: str) -> Record | None:
        name = _image_name(task.get("data"))
        if name is None:
            self.problems.append(f"{where}: data must name an image")
            return None
        path = self._find(name, where)
        size = next((size for region in regions if (size := _stated_size(region))), None)
        record = Record.with_size(path, image_id, *(size or (None, None)))
        labeled = {str(region.get("id")) for region in regions if _labels(region)}
        for index, region in enumerate(regions):
            # Choices and texts of a region repeat its shape under its id.
            if _labels(region) or region.get("id") is None or str(region["id"]) not in labeled:
                self._add(record, region, f"{where}: region {shown(region.get('id', index))}")
        return record

    def _find(self, name: str, where: str) -> Path:
        """Return the image of this name, or of the name without the hash that Label Studio prepends."""
        plain = PurePosixPath(name)
        prefix, dash, rest = plain.name.partition("-")
        if dash and rest and len(prefix) == 8 and set(prefix) <= set("0123456789abcdef"):
            without = str(plain.with_name(rest))
            if not self.finder.locate(name, where, []) and self.finder.locate(without, where, []):
                name = without
        return self.finder.find(name, where, self.problems)

    def _add(self, record: Record, region: Row, where: str) -> None:
        value = region.get("value")
        if not isinstance(value, dict):
            self.left_out[f"of type {region.get('type')}, which is no shape"] += 1
            return
        labels = _labels(region)
        kind = "polygon" if "points" in value else "rectangle" if "width" in value and "x" in value else None
        if kind is None:
            self.left_out[f"of type {region.get('type')}, neither a rectangle nor a polygon"] += 1
        elif not labels:
            self.left_out[f"a {kind} without a label"] += 1
        else:
            box = _box(value, *(_stated_size(region) or (record.width, record.height)))
            if box is None:
                self.problems.append(f"{where}: a {kind} must have numbers, in percent of the image")
                return
            for label in labels:
                if isinstance(label, str) and label.strip():
                    record.add(box, label)
                else:
                    self.problems.append(f"{where}: a label must be text, got {shown(label)}")


def _is_rotated(region: Row) -> bool:
    """Return whether a region was drawn on a rotated image. A rotation that is no number counts as one."""
    degrees = parse_number(region.get("image_rotation") or 0)
    return degrees is None or degrees % 360 != 0


def _labels(region: Row) -> list[object]:
    """Return the classes of a region, under `rectanglelabels`, `polygonlabels` or `labels`."""
    value = region.get("value")
    fields = value if isinstance(value, dict) else {}
    return next((_as_list(fields[key]) for key in fields if key.endswith("labels")), [])


def _box(value: Row, width: int, height: int) -> list[float] | None:
    """Return the box xywh in pixels of a region in percent."""
    if "points" in value:
        points = [parse_numbers(point, 2) for point in _as_list(value["points"])]
        valid = [[x * width / 100, y * height / 100] for x, y in filter(None, points)]
        return box_around(valid) if len(valid) == len(points) >= 3 else None
    percent = parse_numbers([value.get(key) for key in ("x", "y", "width", "height")], 4)
    degrees = parse_number(value.get("rotation") or 0)
    if percent is None or degrees is None:
        return None
    x, y, w, h = percent
    box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
    return box_around_rotated(box, degrees, (box[0], box[1]))


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
