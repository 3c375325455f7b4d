"""Read manifests of cloud services: JSON lines, each with the address of an image and its objects.

Known are those of Amazon SageMaker Ground Truth (jobs for bounding boxes), Google Vertex AI and Azure Machine Learning.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import sort_naturally, to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder, folder_of_images, image_root
from detr_ft.data.sources.listing import files_below, files_by_split, split_of
from detr_ft.data.sources.parsing import parse_flag, parse_json, parse_number, parse_numbers, read_lines, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Flags, Record
from detr_ft.data.sources.shapes_to_boxes import box_around
from detr_ft.errors import InputError

Service = Literal["sagemaker", "vertex", "azure"]

_SUFFIXES = {".jsonl", ".manifest"}
_ADDRESS_KEYS: dict[Service, str] = {"sagemaker": "source-ref", "vertex": "imageGcsUri", "azure": "image_url"}
_SPLIT_LABEL = "aiplatform.googleapis.com/ml_use"
_OUTPUT_NAME = "output.manifest"  # Ground Truth writes intermediate manifests beside it
_SAMPLE_LINES = 5
_MAX_LINE_BYTES = 1 << 20

_Row = Mapping[str, object]

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file is a manifest, or a folder has one."""
    return _is_manifest(path) if path.is_file() else bool(_files(path))


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a manifest, or those of a folder; classes are sorted.

    Images are found by the last parts of their addresses. Splits are those of Vertex AI's `ml_use`, else in the names of
    several files. Lines without annotations are left out and counted.
    """
    files = {"train": [path]} if path.is_file() else files_by_split(_files(path), path)
    if not any(files.values()):
        raise InputError(
            f"{path}: no manifest of SageMaker, Vertex AI or Azure ML, expected a .manifest or .jsonl file"
        )
    readers = [_Reader(file, split, options.images) for split, some in files.items() for file in some]
    splits: dict[str, list[Record]] = {}
    has_labels = False
    for reader in readers:
        for split, record in reader.read():
            records = splits.setdefault(split, [])
            record.image_id = len(records)
            records.append(record)
        has_labels = has_labels or reader.has_split_labels
    raise_all([reason for reader in readers for reason in reader.reasons()])
    for reader in readers:
        reader.log_notes()
    split_by = "ml_use" if has_labels else "the names of the files and folders" if len(files) > 1 else None
    return to_source_data(
        splits,
        sort_naturally(used_names(splits) - {""}),
        path,
        [problem for reader in readers for problem in reader.problems],
        split_by=split_by,
    )


def _files(folder: Path) -> list[Path]:
    files = [file for file in files_below(folder, _SUFFIXES) if _is_manifest(file)]
    return [file for file in files if file.name == _OUTPUT_NAME] or files


def _is_manifest(file: Path) -> bool:
    """Return whether one of the first lines of a file is that of a manifest."""
    if file.suffix.lower() not in _SUFFIXES:
        return False
    try:
        with file.open("rb") as stream:
            lines = [stream.readline(_MAX_LINE_BYTES) for _ in range(_SAMPLE_LINES)]
    except OSError:
        return False
    return any(_service(_parse(line.decode("utf-8-sig", errors="replace"))[0]) for line in lines)


def _parse(line: str) -> tuple[object, str]:
    """Return the value of a line, and the reason if it can't be parsed."""
    try:
        return parse_json(line), ""
    except ValueError as error:
        return None, str(error)


def _service(row: object) -> Service | None:
    """Return the service that wrote a line, by the key of its image."""
    if not isinstance(row, dict):
        return None
    return next((service for service, key in _ADDRESS_KEYS.items() if isinstance(row.get(key), str)), None)


@dataclass
class _Reader:
    """Converts the lines of a manifest to records; `problems` belong to no record."""

    file: Path
    split: str
    images: Path | None
    problems: list[Problem] = field(default_factory=list)
    num_lines: int = 0
    num_unlabeled: int = 0
    has_split_labels: bool = False

    def __post_init__(self) -> None:
        near = [self.file.absolute().parent]
        self.finder = ImageFinder(folder_of_images(image_root(self.file)), near, images=self.images)

    def read(self) -> Iterator[tuple[str, Record]]:
        """Yield the split and the record of each line."""
        for number, line in enumerate(read_lines(self.file), start=1):
            if line.strip():
                yield from self._read_line(line, f"{self.file}, line {number}")

    def reasons(self) -> list[str]:
        """Return the reasons why the file is no manifest."""
        if self.num_lines or self.num_unlabeled:
            return self.finder.all_missing(self.file)
        keys = ", ".join(_ADDRESS_KEYS.values())
        messages = [problem.message for problem in self.problems]
        return messages or [f"{self.file}: not a manifest, each line must have one of the keys {keys}"]

    def log_notes(self) -> None:
        """Log the number of lines without annotations, and images under other names."""
        if self.num_unlabeled:
            log.warning("%s: %d images have no annotations and are left out", self.file, self.num_unlabeled)
        self.finder.log_substitutes(self.file)

    def _read_line(self, line: str, where: str) -> Iterator[tuple[str, Record]]:
        row, reason = _parse(line)
        service = _service(row)
        if not isinstance(row, dict) or service is None:
            reason = reason or f"must have one of the keys {', '.join(_ADDRESS_KEYS.values())}"
            self.problems.append(Problem("unreadable annotation", f"{where}: {reason}"))
            return
        if service == "sagemaker":
            row = _newest_job(row)
        objects = row.get(_OBJECT_KEYS[service])
        if objects is None:
            self.num_unlabeled += 1
            return
        self.num_lines += 1
        messages: list[str] = []
        name = str(row[_ADDRESS_KEYS[service]])
        path = self.finder.find(name, where, messages)
        record = Record.with_size(path, 0, *_sides(row, service))
        record.doubts += messages
        record.stated = name
        if isinstance(objects, list):
            for index, item in enumerate(objects):
                _add(record, row, item, service, f"{where}, object {index}")
        else:
            record.unreadable.append(
                f"{where}: {_OBJECT_KEYS[service]} must be a list of objects, got {shown(objects)}"
            )
        yield self._split(row), record

    def _split(self, row: _Row) -> str:
        labels = row.get("dataItemResourceLabels")
        word = labels.get(_SPLIT_LABEL) if isinstance(labels, dict) else None
        split = split_of(word) if isinstance(word, str) else None
        self.has_split_labels = self.has_split_labels or split is not None
        return split or self.split


_OBJECT_KEYS: dict[Service, str] = {
    "sagemaker": "annotations",
    "vertex": "boundingBoxAnnotations",
    "azure": "label",
}


def _newest_job(row: _Row) -> _Row:
    """Return the annotations, image size and classes of the newest labeling job of a line.

    They are merged with the image's address. A job with the attribute `NAME` writes `NAME` and `NAME-metadata`. A job
    without annotations (a failed one) is ignored.
    """
    jobs: list[tuple[str, int, _Row]] = []
    for index, (key, metadata) in enumerate(row.items()):
        job = row.get(key.removesuffix("-metadata")) if key.endswith("-metadata") else None
        if isinstance(metadata, dict) and isinstance(job, dict) and "annotations" in job:
            merged = {**job, "class-map": metadata.get("class-map"), "source-ref": row["source-ref"]}
            jobs.append((str(metadata.get("creation-date", "")), index, merged))
    return max(jobs, key=lambda job: job[:2])[2] if jobs else {"source-ref": row["source-ref"]}


def _sides(row: _Row, service: Service) -> tuple[object, object]:
    """Return the stated width and height of the image; Azure ML may write "400px"."""
    stated = row.get({"sagemaker": "image_size", "azure": "image_details"}.get(service, ""))
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    if not isinstance(stated, dict):
        return None, None
    width, height = (stated.get(key) for key in ("width", "height"))
    return _pixels(width), _pixels(height)


def _pixels(value: object) -> float | None:
    return parse_number(value.removesuffix("px") if isinstance(value, str) else value)


def _add(record: Record, row: _Row, item: object, service: Service, where: str) -> None:
    """Append an object, or what is wrong with it."""
    if not isinstance(item, dict):
        record.unreadable.append(f"{where}: must be a mapping, got {shown(item)}")
        return
    name, fault = _name(row, item, service, where)
    if service == "sagemaker":
        box = _of_pixels(item)
        needs = "the numbers left, top, width, height, or vertices with x and y"
    elif service == "vertex":
        box, needs = _of_fractions(item, record, "xMin", "yMin", "xMax", "yMax"), "the numbers xMin, yMin, xMax, yMax"
    else:
        box = _of_polygons(item, record) or _of_fractions(item, record, "topX", "topY", "bottomX", "bottomY")
        needs = "the numbers topX, topY, bottomX, bottomY, or a polygon"
    crowd = service == "azure" and parse_flag(item.get("isCrowd"), "isCrowd", where, record.unreadable)
    if not name and not fault:
        record.unreadable.append(f"{where}: must have a class")
    if box is None:
        record.unreadable.append(f"{where}: must have {needs}")
    if box and (name or fault):
        record.add(box, name, flags=Flags(crowd=crowd), fault=fault)


def _name(row: _Row, item: _Row, service: Service, where: str) -> tuple[str, str]:
    """Return the class of an object, empty if there is none, and the message for one that is not declared."""
    if service != "sagemaker":
        stated = item.get("displayName" if service == "vertex" else "label")
        return (stated.strip() if isinstance(stated, str) else ""), ""
    number, classes = item.get("class_id"), row.get("class-map")
    name = classes.get(str(number)) if isinstance(classes, dict) and number is not None else None
    if isinstance(name, str) and name.strip():
        return name.strip(), ""
    return "", f"{where}: class_id {shown(number)} is not in the class-map"


def _of_pixels(item: _Row) -> list[float] | None:
    """Return the box of a job for boxes, or around the vertices of a polygon."""
    vertices = item.get("vertices")
    if isinstance(vertices, list):
        points = [_numbers(vertex, "x", "y") if isinstance(vertex, dict) else None for vertex in vertices]
        valid = [point for point in points if point]
        return box_around(valid) if len(valid) == len(points) >= 3 else None
    return _numbers(item, "left", "top", "width", "height")


def _of_fractions(item: _Row, record: Record, *keys: str) -> list[float] | None:
    """Return the box xywh in pixels of corners in fractions of the image."""
    corners = _numbers(item, *keys)
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    return [x0 * record.width, y0 * record.height, (x1 - x0) * record.width, (y1 - y0) * record.height]


def _of_polygons(item: _Row, record: Record) -> list[float] | None:
    """Return the box in pixels around polygons in fractions of the image: lists of x, y, x, y, ..."""
    rows = item.get("polygon")
    rows = rows if isinstance(rows, list) else []
    flat = [parse_numbers(row, len(row)) if isinstance(row, list) else None for row in rows]
    valid = [row for row in flat if row and len(row) >= 6 and len(row) % 2 == 0]
    if not valid or len(valid) < len(rows):
        return None
    points = [(x * record.width, y * record.height) for row in valid for x, y in _pairs(row)]
    return box_around(points)


def _pairs(row: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(row[::2], row[1::2], strict=True))


def _numbers(row: _Row, *keys: str) -> list[float] | None:
    return parse_numbers([row.get(key) for key in keys], len(keys))
