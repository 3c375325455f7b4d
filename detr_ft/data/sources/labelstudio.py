"""Reads Label Studio's exports JSON and JSON-MIN: a list of tasks, an image each."""

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
from detr_ft.data.sources.parsing import parse_flag, parse_json, parse_numbers, parse_side, read_text, shown
from detr_ft.data.sources.record import Record, to_dataset, used_names
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_turned
from detr_ft.errors import InputError

_LISTED = 50  # tasks

Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Whether a file, or a file of the splits of a folder, is Label Studio's."""
    return json_tool_of(path) == "labelstudio"


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """The data set of a Label Studio export, or of a folder with one for each split; classes are sorted by name.

    Rectangles (turned ones get the box around them) and polygons become objects; other regions are left out. Of several
    annotations of a task the newest that isn't cancelled counts; a task without one is left out.
    """
    splits: dict[str, list[Record]] = {}
    problems: list[str] = []
    for file in [path] if path.is_file() else files_below(path, {".json"}):
        records = splits.setdefault(split_of_file(file.absolute()), [])
        reader = _Reader(file)
        records.extend(reader.read(len(records)))
        problems += [*reader.problems, *reader.refused(), *reader.finder.nothing_found(file)]
        reader.tell()
    raise_all(problems)
    if not any(splits.values()):
        raise InputError(f"{path}: no annotated task found; export the project from Label Studio as JSON")
    return SourceData(to_dataset(splits, sorted(used_names(splits)), path))


@dataclass
class _Reader:
    """Turns the tasks of a file into records, and keeps what is wrong and what is left out."""

    file: Path
    problems: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    unannotated: int = 0
    annotated_often: int = 0
    turned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.finder = ImageFinder(self.file.parent)

    def read(self, first_id: int) -> Iterator[Record]:
        """The records of the tasks, numbered from `first_id`."""
        for number, task in enumerate(self._tasks()):
            name = shown(task.get("id", number))
            where = f"{self.file}: task {name}"
            annotation = self._newest(task)
            if annotation is None:
                continue
            regions: list[Row] = [one for one in _as_list(annotation.get("result")) if isinstance(one, dict)]
            record = self._record(task, regions, first_id, where)
            if any(map(_is_turned, regions)):
                self.turned.append(name)
            if record:
                yield record
                first_id += 1

    def refused(self) -> Iterator[str]:
        """A problem with the tasks whose image was turned: the export doesn't define where boxes lie in it then."""
        if self.turned:
            listed = ", ".join(self.turned[:_LISTED])
            more = f" and {len(self.turned) - _LISTED} more" if len(self.turned) > _LISTED else ""
            yield (
                f"{self.file}: the image was turned (image_rotation) in tasks {listed}{more}, and the export doesn't say "
                "where on the file's image their boxes lie: turn the images back in Label Studio, check the boxes, and "
                "export again, or remove these tasks"
            )

    def tell(self) -> None:
        """Say on the log what was left out, with numbers."""
        for kind, count in sorted(self.left_out.items()):
            log.warning("%s: %d regions are left out: %s", self.file, count, kind)
        if self.unannotated:
            log.warning("%s: %d tasks have no annotation and are left out", self.file, self.unannotated)
        if self.annotated_often:
            message = "%s: %d tasks have several annotations, of which the newest that isn't cancelled counts"
            log.warning(message, self.file, self.annotated_often)

    def _tasks(self) -> list[Row]:
        try:
            content = parse_json(read_text(self.file))
        except ValueError as error:
            self.problems.append(f"{self.file}: {error}")
            return []
        rows = content if isinstance(content, list) else []
        tasks: list[Row] = [row for row in rows if isinstance(row, dict) and "image_id" not in row]
        detections = "; a list of image_id, category_id and score is detections, no labels" if _is_results(rows) else ""
        if not tasks or len(tasks) < len(rows):
            self.problems.append(
                f"{self.file}: not an export of Label Studio: expected a list of tasks, each with data{detections}"
            )
            return []
        return tasks if "data" in tasks[0] else _from_min(tasks)

    def _newest(self, task: Row) -> Row | None:
        annotations = [one for one in _as_list(task.get("annotations")) if isinstance(one, dict)]
        where = f"{self.file}: task {shown(task.get('id'))}"
        valid = [
            one
            for one in annotations
            if not parse_flag(one.get("was_cancelled"), "was_cancelled", where, self.problems)
        ]
        self.unannotated += not valid
        self.annotated_often += len(valid) > 1
        return max(valid, key=_age, default=None)

    def _record(self, task: Row, regions: list[Row], image_id: int, where: str) -> Record | None:
        name = _image_name(task.get("data"))
        if name is None:
            self.problems.append(f"{where}: data names no image")
            return None
        path = self._find(name, where)
        stated = next((size for region in regions if (size := _stated_size(region))), None)
        record = Record.sized(path, image_id, *(stated or (None, None)))
        labelled = {str(region.get("id")) for region in regions if _labels(region)}
        for index, region in enumerate(regions):
            # What is asked for each region (a choice, a text) repeats its shape under its id.
            if _labels(region) or region.get("id") is None or str(region["id"]) not in labelled:
                self._add(record, region, f"{where}: region {shown(region.get('id', index))}")
        return record

    def _find(self, name: str, where: str) -> Path:
        """The image by its name, or by the one it had before Label Studio put a hash before it."""
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
                self.problems.append(f"{where}: a {kind} needs numbers, in percent of the image")
                return
            for label in labels:
                if isinstance(label, str) and label.strip():
                    record.add(box, label)
                else:
                    self.problems.append(f"{where}: a label must be text, got {shown(label)}")


def _is_turned(region: Row) -> bool:
    """Whether a region was drawn on an image that Label Studio showed turned; what isn't a number counts as turned."""
    stated = region.get("image_rotation")
    degrees = parse_numbers([stated or 0], 1)
    return degrees is None or degrees[0] % 360 != 0


def _labels(region: Row) -> list[object]:
    """The classes of a region, under `rectanglelabels`, `polygonlabels` or `labels`."""
    value = region.get("value")
    fields = value if isinstance(value, dict) else {}
    return next((_as_list(fields[key]) for key in fields if key.endswith("labels")), [])


def _box(value: Row, width: int, height: int) -> list[float] | None:
    """The box xywh in pixels of a region in percent."""
    if "points" in value:
        points = [parse_numbers(point, 2) for point in _as_list(value["points"])]
        whole = [[x * width / 100, y * height / 100] for x, y in filter(None, points)]
        return box_around(whole) if len(whole) == len(points) >= 3 else None
    found = parse_numbers([value.get(key) for key in ("x", "y", "width", "height")], 4)
    turned = parse_numbers([value.get("rotation") or 0], 1)
    if found is None or turned is None:
        return None
    x, y, w, h = found
    box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
    return box_around_turned(box, turned[0], (box[0], box[1]))


def _stated_size(region: Row) -> tuple[int, int] | None:
    width, height = parse_side(region.get("original_width")), parse_side(region.get("original_height"))
    return (width, height) if width and height else None


def _age(annotation: Row) -> tuple[str, int]:
    number = annotation.get("id")
    when = annotation.get("updated_at") or annotation.get("created_at")
    return str(when or ""), number if isinstance(number, int) else 0


def _from_min(rows: list[Row]) -> list[Row]:
    """The tasks of JSON-MIN, a row for each annotation, in the shape of those of JSON."""
    tasks: dict[object, dict[str, object]] = {}
    for number, row in enumerate(rows):
        regions = [
            {"type": key, "value": one, **one}
            for key, value in row.items()
            for one in _as_list(value)
            if isinstance(one, dict)
        ]
        task = tasks.setdefault(str(row.get("id", f"row {number}")), {"id": row.get("id", number), "data": row})
        annotations = _as_list(task.setdefault("annotations", []))
        annotations.append({**row, "id": row.get("annotation_id"), "result": regions})
    return list(tasks.values())


def _image_name(data: object) -> str | None:
    """The image's path in a task's data: that called image, else the first text that ends as an image file does."""
    fields = data if isinstance(data, dict) else {}
    texts = [fields.get("image"), *fields.values()]
    names = [_path_of(text) for text in texts if isinstance(text, str) and text]
    return next((name for name in names if PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES), None)


def _path_of(address: str) -> str:
    """The path in an address; local storage writes it as `/data/local-files/?d=PATH`."""
    try:
        parts = urlsplit(address.replace("\\", "/"))
    except ValueError:  # no address at all
        return address
    local = parse_qs(parts.query).get("d")
    return (local[0] if local else unquote(parts.path)).lstrip("/")


def _is_results(rows: list[object]) -> bool:
    """Whether these are detections, as COCO's results are written."""
    return bool(rows) and isinstance(rows[0], dict) and "image_id" in rows[0]


def _as_list(value: object) -> list[object]:
    """The list that a field holds; an empty one for anything else."""
    return value if isinstance(value, list) else []
