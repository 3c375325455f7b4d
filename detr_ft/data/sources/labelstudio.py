"""Read Label Studio's exports JSON and JSON-MIN: a list of tasks with one image each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.json_files import json_instead, json_tool, json_tool_of
from detr_ft.data.sources.labelstudio_regions import (
    WITHOUT_AREA,
    Row,
    as_list,
    box_of,
    is_object,
    is_rotated,
    is_shape,
    labels_of,
    needs_of,
    num_objects,
    stated_size,
)
from detr_ft.data.sources.listing import files_below, name_splits, split_of, split_of_path
from detr_ft.data.sources.parsing import parse_flag, parse_json, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Record
from detr_ft.errors import InputError

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
        if not any(as_list(task.get(key)) for task in tasks) and any(
            as_list(task.get("predictions")) for task in tasks
        ):
            key = "predictions"
            log.warning("%s: no task has an annotation; the predictions of a model are read instead", self.file)
        for number, task in enumerate(tasks):
            where = f"{self.file}: task {shown(task.get('id', number))}"
            annotation = self._newest(task, key)
            if annotation is None:
                continue
            record = self._record(task, annotation.get("result"), first_id, where)
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
        rows, where = task.get(key), f"{self.file}: task {shown(task.get('id'))}"
        annotations: list[Row] = [row for row in as_list(rows) if isinstance(row, dict)]
        faults: list[str] = []
        if rows is not None and (not isinstance(rows, list) or len(annotations) < len(rows)):
            faults.append(f"{where}: {key} must be a list of mappings, got {shown(rows)}")
        valid = [
            annotation
            for annotation in annotations
            if not parse_flag(annotation.get("was_cancelled"), "was_cancelled", where, faults)
        ]
        self.problems += [Problem("unreadable annotation", fault) for fault in faults]
        self.num_unannotated += not valid
        self.num_reannotated += len(valid) > 1
        newest = max(valid, key=_last_change, default=None)
        if newest is not None and isinstance(newest.get("result"), list) and not num_objects(newest):
            self._check_older(valid, where)
        return newest

    def _check_older(self, annotations: Sequence[Row], where: str) -> None:
        """Add a problem if the newest annotation has no objects and an older one has."""
        count = max(map(num_objects, annotations))
        if count:
            message = (
                f"{where}: the newest annotation has no objects and is used, an older one has {count}. Delete the wrong "
                "one in Label Studio"
            )
            self.problems.append(Problem("lost annotation", message, count=count))

    def _record(self, task: Row, result: object, image_id: int, where: str) -> Record | None:
        rows = as_list(result)
        regions: list[Row] = [row for row in rows if isinstance(row, dict)]
        name = _image_name(task.get("data"))
        if name is None:
            message = f"{where}: data must name an image"
            self.problems.append(Problem("lost annotation", message, count=len(rows)))
            return None
        problems: list[str] = []
        path = self._find(name, where, problems)
        size = next((size for region in regions if (size := stated_size(region))), None)
        record = Record.with_size(path, image_id, *(size or (None, None)))
        record.doubts += problems
        record.stated = name
        if not isinstance(result, list):
            record.unreadable.append(f"{where}: result must be a list of regions, got {shown(result)}")
        record.unreadable += [
            f"{where}: region {index}: must be a mapping, got {shown(row)}"
            for index, row in enumerate(rows)
            if not isinstance(row, dict)
        ]
        if any(map(is_rotated, regions)):
            record.unreadable.append(
                f"{where}: the image is rotated (image_rotation), and the export does not define its boxes on the file's "
                "image. Rotate it back in Label Studio, check the boxes and export again"
            )
        labeled = {str(region.get("id")) for region in regions if labels_of(region)}
        for index, region in enumerate(regions):
            # Choices and texts of a region repeat its shape under its id.
            if labels_of(region) or region.get("id") is None or str(region["id"]) not in labeled:
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
        if not is_object(region):
            self.left_out[f"of type {kind}, which is no shape"] += 1
            return
        if not isinstance(value, dict) or not is_shape(value):
            record.unreadable.append(
                f"{where}: the value of type {kind} must have the position of a shape, got {shown(value)}"
            )
            return
        labels = labels_of(region)
        if not labels:
            record.unreadable.append(f"{where}: a region of type {kind} must have a label")
            return
        if kind in WITHOUT_AREA:
            record.without_area.append(f"{where}: a region of type {kind} has no area")
            return
        box = box_of(value, *(stated_size(region) or (record.width, record.height)))
        if box is None:
            record.unreadable.append(f"{where}: a region of type {kind} must have {needs_of(value)}")
            return
        for label in labels:
            if isinstance(label, str) and label.strip():
                record.add(box, label)
            else:
                record.unreadable.append(f"{where}: a label must be text, got {shown(label)}")


def _last_change(annotation: Row) -> tuple[str, int]:
    number = annotation.get("id")
    time = annotation.get("updated_at") or annotation.get("created_at")
    return str(time or ""), number if isinstance(number, int) else 0


def _tasks_of_json_min(rows: list[Row]) -> list[Row]:
    """Convert JSON-MIN, a row for each annotation, to the tasks of JSON."""
    tasks: dict[object, dict[str, object]] = {}
    shape_keys = {key for row in rows for key, value in row.items() if any(map(_is_region, as_list(value)))}
    for number, row in enumerate(rows):
        lists = {key: value if isinstance(value, list) else [value] for key, value in row.items() if value is not None}
        # Anything else than a mapping is a text of the task, or a damaged region.
        regions = [
            {"type": key, "value": region, **region} if isinstance(region, dict) else region
            for key, value in lists.items()
            for region in value
            if isinstance(region, dict) or key in shape_keys
        ]
        task = tasks.setdefault(str(row.get("id", f"row {number}")), {"id": row.get("id", number), "data": row})
        annotations = as_list(task.setdefault("annotations", []))
        annotations.append({**row, "id": row.get("annotation_id"), "result": regions})
    return list(tasks.values())


def _is_region(value: object) -> bool:
    return isinstance(value, dict) and is_shape(value)


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
