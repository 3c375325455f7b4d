"""Reads Label Studio's exports JSON and JSON-MIN: a list of tasks, an image each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from datasets import DatasetDict

from detr_ft.data.sources.flags import flag
from detr_ft.data.sources.image_search import ImageSearch
from detr_ft.data.sources.labelstudio.tasks import Row, as_list, from_min, image_name, is_results
from detr_ft.data.sources.problems import raise_all
from detr_ft.data.sources.record import (
    Record,
    numbers,
    split_of,
    split_of_folder,
    stated_side,
    to_dataset,
)
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_turned
from detr_ft.data.sources.text import parse_json, read_text, shown
from detr_ft.errors import InputError

_LISTED = 50  # tasks

log = logging.getLogger(__name__)


def read_labelstudio(path: Path) -> DatasetDict:
    """The data set of a Label Studio export, or of a folder with one for each split; classes are sorted by name.

    Rectangles (turned ones get the box around them) and polygons become objects; other regions are left out. Of several
    annotations of a task the newest that isn't cancelled counts; a task without one is left out.
    """
    splits: dict[str, list[Record]] = {}
    problems: list[str] = []
    for file in [path] if path.is_file() else sorted(path.rglob("*.json")):
        records = splits.setdefault(split_of(file.stem) or split_of_folder(file.absolute().parent) or "train", [])
        reader = _Reader(file)
        records.extend(reader.read(len(records)))
        problems += [*reader.problems, *reader.refused(), *reader.search.nothing_found(file)]
        reader.tell()
    raise_all(problems)
    if not any(splits.values()):
        raise InputError(f"{path}: no annotated task found; export the project from Label Studio as JSON")
    names = {name for records in splits.values() for record in records for name in record.names}
    return to_dataset(splits, sorted(names), path)


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
        self.search = ImageSearch(self.file.parent)

    def read(self, first_id: int) -> Iterator[Record]:
        """The records of the tasks, numbered from `first_id`."""
        for number, task in enumerate(self._tasks()):
            name = shown(task.get("id", number))
            where = f"{self.file}: task {name}"
            annotation = self._newest(task)
            if annotation is None:
                continue
            regions: list[Row] = [one for one in as_list(annotation.get("result")) if isinstance(one, dict)]
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
        detections = "; a list of image_id, category_id and score is detections, no labels" if is_results(rows) else ""
        if not tasks or len(tasks) < len(rows):
            self.problems.append(
                f"{self.file}: not an export of Label Studio: expected a list of tasks, each with data{detections}"
            )
            return []
        return tasks if "data" in tasks[0] else from_min(tasks)

    def _newest(self, task: Row) -> Row | None:
        annotations = [one for one in as_list(task.get("annotations")) if isinstance(one, dict)]
        where = f"{self.file}: task {shown(task.get('id'))}"
        valid = [
            one for one in annotations if not flag(one.get("was_cancelled"), "was_cancelled", where, self.problems)
        ]
        self.unannotated += not valid
        self.annotated_often += len(valid) > 1
        return max(valid, key=_age, default=None)

    def _record(self, task: Row, regions: list[Row], image_id: int, where: str) -> Record | None:
        name = image_name(task.get("data"))
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
            if not self.search.locate(name, where, []) and self.search.locate(without, where, []):
                name = without
        return self.search.find(name, where, self.problems)

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
    degrees = numbers([stated or 0], 1)
    return degrees is None or degrees[0] % 360 != 0


def _labels(region: Row) -> list[object]:
    """The classes of a region, under `rectanglelabels`, `polygonlabels` or `labels`."""
    value = region.get("value")
    fields = value if isinstance(value, dict) else {}
    return next((as_list(fields[key]) for key in fields if key.endswith("labels")), [])


def _box(value: Row, width: int, height: int) -> list[float] | None:
    """The box xywh in pixels of a region in percent."""
    if "points" in value:
        points = [numbers(point, 2) for point in as_list(value["points"])]
        whole = [[x * width / 100, y * height / 100] for x, y in filter(None, points)]
        return box_around(whole) if len(whole) == len(points) >= 3 else None
    found = numbers([value.get(key) for key in ("x", "y", "width", "height")], 4)
    turned = numbers([value.get("rotation") or 0], 1)
    if found is None or turned is None:
        return None
    x, y, w, h = found
    box = [x * width / 100, y * height / 100, w * width / 100, h * height / 100]
    return box_around_turned(box, turned[0], (box[0], box[1]))


def _stated_size(region: Row) -> tuple[int, int] | None:
    width, height = stated_side(region.get("original_width")), stated_side(region.get("original_height"))
    return (width, height) if width and height else None


def _age(annotation: Row) -> tuple[str, int]:
    number = annotation.get("id")
    when = annotation.get("updated_at") or annotation.get("created_at")
    return str(when or ""), number if isinstance(number, int) else 0
