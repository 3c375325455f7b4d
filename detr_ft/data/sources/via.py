"""Read VGG Image Annotator (VIA) 2 and 1: a project, or annotations that were exported as JSON or CSV."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder, folder_of_images, image_root
from detr_ft.data.sources.json_files import files_of_tool, json_tool_of
from detr_ft.data.sources.listing import files_below, files_by_split
from detr_ft.data.sources.parsing import decode_text, parse_json, parse_number, parse_numbers, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_ellipse
from detr_ft.errors import InputError

_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
_WITHOUT_AREA = ("point", "polyline")
_USUAL_ATTRIBUTES = ("class", "label", "category", "type", "name", "object")  # preferred if others occur as often
_CLASS_WITHOUT_ATTRIBUTES = "object"
_HEAD_BYTES = 1 << 14

_Row = Mapping[str, object]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Region:
    """A region of an image: its shape and its attributes, None for what can't be read."""

    where: str
    shape: _Row | None
    attributes: _Row | None

    @property
    def values(self) -> dict[str, str]:
        """The attributes that have a value, as texts; of a checkbox its checked options."""
        texts = {key: _text(value) for key, value in (self.attributes or {}).items()}
        return {key: text for key, text in texts.items() if text}


@dataclass
class _Image:
    name: str
    where: str
    regions: list[_Region] = field(default_factory=list)
    fault: str = ""  # why its regions can't be read


def recognizes(path: Path) -> bool:
    """Return whether a file, most JSON files of a folder or one of its CSV files were written by VIA."""
    if path.suffix.lower() == ".csv" and path.is_file():
        return _is_csv(path)
    return json_tool_of(path) == "via" or (path.is_dir() and any(map(_is_csv, files_below(path, {".csv"}))))


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a file of VIA, or those of a folder; classes are sorted by name.

    Every region with an area is an object with the box around it; points and polylines are left out. The class is the
    region attribute that has a value in most regions, which is logged. Without any attribute, all regions are of the class
    "object". The size of an image is that of its file.
    """
    files = {"train": [path]} if path.is_file() else files_by_split(_files(path), path)
    if not any(files.values()):
        raise InputError(f"{path}: no file of VGG Image Annotator, expected its project or annotations as JSON or CSV")
    problems: list[Problem] = []
    images = {split: [(file, _images(file, problems)) for file in some] for split, some in files.items()}
    attribute = _class_attribute([image for some in images.values() for _, inside in some for image in inside], path)
    splits = {
        split: [record for file, inside in some for record in _records(file, inside, attribute, options.images)]
        for split, some in images.items()
    }
    _check_repeated(splits, [file for some in files.values() for file in some], path)
    for records in splits.values():
        for index, record in enumerate(records):
            record.image_id = index
    names = sorted(used_names(splits) - {""})
    split_by = "the names of the files and folders" if len(files) > 1 else None
    return to_source_data(splits, names, path, problems, split_by=split_by)


def _files(folder: Path) -> list[Path]:
    """Return the JSON files of VIA below a folder, and its CSV files that do not only repeat them."""
    json_files = files_of_tool(files_below(folder, {".json"}), "via")
    csv_files = [file for file in files_below(folder, {".csv"}) if _is_csv(file)]
    if not json_files or not csv_files:
        return json_files or csv_files
    names = {image.name for file in json_files for image in _images(file, [])}
    return [*json_files, *(file for file in csv_files if {image.name for image in _images(file, [])} - names)]


def _is_csv(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            head = decode_text(stream.read(_HEAD_BYTES), errors="replace")
    except OSError:
        return False
    return all(column in head.partition("\n")[0] for column in _COLUMNS)


def _images(file: Path, problems: list[Problem]) -> list[_Image]:
    of_file = _images_of_csv if file.suffix.lower() == ".csv" else _images_of_json
    return list(of_file(file, problems))


def _images_of_json(file: Path, problems: list[Problem]) -> Iterator[_Image]:
    try:
        content = parse_json(read_text(file))
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error
    rows = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(rows, dict):
        raise InputError(
            f"{file}: not a file of VGG Image Annotator, must have _via_img_metadata or images by their names"
        )
    for key, row in rows.items():
        where = f"{file}: image {shown(key)}"
        name = row.get("filename") if isinstance(row, dict) else None
        if not isinstance(row, dict) or not isinstance(name, str) or not name.strip():
            problems.append(Problem("unreadable annotation", f"{where}: must have a filename and regions"))
            continue
        regions = row.get("regions")  # in VIA 1 a mapping
        rows = list(regions.values()) if isinstance(regions, dict) else regions
        if isinstance(rows, list):
            yield _Image(name.strip(), where, _regions(rows, where))
        else:
            fault = f"{where}: must have regions, a list, which is empty for an image without objects"
            yield _Image(name.strip(), where, fault=fault)


def _regions(rows: Sequence[object], where: str) -> list[_Region]:
    pairs = [
        (row.get("shape_attributes"), row.get("region_attributes")) if isinstance(row, dict) else (None, None)
        for row in rows
    ]
    return [
        _Region(f"{where}, object {index}", _mapping(shape), _mapping(attributes))
        for index, (shape, attributes) in enumerate(pairs)
    ]


def _images_of_csv(file: Path, problems: list[Problem]) -> Iterator[_Image]:
    reader = csv.reader(io.StringIO(read_text(file), newline=""))
    images: dict[str, _Image] = {}
    try:
        header = [cell.strip().lstrip("#") for cell in next(reader, [])]
        missing = [column for column in _COLUMNS if column not in header]
        if missing:
            raise InputError(
                f"{file}: not a CSV file of VGG Image Annotator, must have the columns {', '.join(missing)}"
            )
        for cells in reader:
            where = f"{file}, line {reader.line_num}"
            row = dict(zip(header, cells, strict=False))
            name = row.get("filename", "").strip()
            if not name:
                if any(map(str.strip, cells)):
                    problems.append(Problem("unreadable annotation", f"{where}: must have a filename"))
                continue
            image = images.setdefault(name, _Image(name, where))
            shape, attributes = _cell(row, "region_shape_attributes"), _cell(row, "region_attributes")
            if shape != {} or attributes != {}:  # an image without regions has one line
                image.regions.append(_Region(where, shape, attributes))
    except csv.Error as error:
        raise InputError(f"{file}, line {reader.line_num}: not a table ({error})") from error
    yield from images.values()


def _cell(row: Mapping[str, str], column: str) -> _Row | None:
    """Return the JSON in a cell, empty if the cell is."""
    try:
        return _mapping(parse_json(row[column])) if row.get(column, "").strip() else {}
    except ValueError:
        return None


def _mapping(value: object) -> _Row | None:
    return value if isinstance(value, dict) else None


def _class_attribute(images: Sequence[_Image], origin: Path) -> str | None:
    """Return the region attribute that has a value in most regions, None if none has."""
    regions = [region for image in images for region in image.regions]
    counts: Counter[str] = Counter(key for region in regions for key in region.values)
    if not counts:
        if regions:
            message = "%s: no region has an attribute; all %d regions are of the class %r"
            log.warning(message, origin, len(regions), _CLASS_WITHOUT_ATTRIBUTES)
        return None
    most = [key for key, count in counts.items() if count == counts.most_common(1)[0][1]]
    usual = [key for word in _USUAL_ATTRIBUTES for key in most if key.strip().lower() == word]
    chosen = next(iter(usual), None) or min(most, key=lambda key: _num_values(regions, key))
    others = ", ".join(f"{key} ({count})" for key, count in counts.most_common() if key != chosen)
    log.info(
        "%s: the class of a region is its attribute %r, which %d of %d regions have%s",
        origin, chosen, counts[chosen], len(regions), f"; others are {others}" if others else "",
    )  # fmt: skip
    return chosen


def _num_values(regions: Sequence[_Region], key: str) -> int:
    return len({region.values.get(key) for region in regions})


def _records(file: Path, images: Sequence[_Image], attribute: str | None, folder: Path | None) -> list[Record]:
    finder = ImageFinder(folder_of_images(image_root(file)), [file.absolute().parent], images=folder)
    records: list[Record] = []
    for image in images:
        messages: list[str] = []
        record = Record.with_size(finder.find(image.name, image.where, messages), len(records))
        record.unreadable += [*messages, *filter(None, [image.fault])]
        for region in image.regions:
            _add(record, region, attribute)
        records.append(record)
    raise_all(finder.all_missing(file))
    finder.log_substitutes(file)
    return records


def _add(record: Record, region: _Region, attribute: str | None) -> None:
    kind = (region.shape or {}).get("name")
    if kind in _WITHOUT_AREA:
        record.without_area.append(f"{region.where}: a {kind} has no area")
        return
    if region.shape is None or not isinstance(kind, str) or kind not in _BOXES:
        got = "" if region.shape is None else f", got {shown(kind)}"
        record.unreadable.append(f"{region.where}: the shape must be one of {', '.join(_BOXES)}{got}")
        return
    box_of, needs = _BOXES[kind]
    box = box_of(region.shape)
    name = region.values.get(attribute, "") if attribute else _CLASS_WITHOUT_ATTRIBUTES
    if attribute and isinstance((region.attributes or {}).get(attribute), dict) and "," in name:
        record.unreadable.append(f"{region.where}: must have one class, got {shown(name)}")
        name = ""
    elif not name:
        record.unreadable.append(f"{region.where}: must have the class, the attribute {shown(attribute)}")
    if box is None:
        record.unreadable.append(f"{region.where}: a {kind} must have {needs}")
    if name and box:
        record.add(box, name)


def _text(value: object) -> str:
    """Return the value of an attribute as text, of a checkbox its checked options; empty for none."""
    if isinstance(value, dict):
        return ", ".join(str(option) for option, checked in value.items() if checked is True)
    return str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""


def _check_repeated(splits: Mapping[str, Sequence[Record]], files: Sequence[Path], origin: Path) -> None:
    """Raise InputError if several files describe the same images, as a project and its export do."""
    counts = Counter(record.path for records in splits.values() for record in records)
    repeated = [path for path, count in counts.items() if count > 1]
    if len(files) > 1 and repeated:
        raise InputError(
            f"{origin}: {len(repeated)} images are in several of the files {', '.join(map(str, files))}, for example "
            f"{repeated[0]}. Name one file, as in via:FILE"
        )


def _numbers(shape: _Row, *keys: str) -> list[float] | None:
    return parse_numbers([shape.get(key) for key in keys], len(keys))


def _of_rect(shape: _Row) -> list[float] | None:
    return _numbers(shape, "x", "y", "width", "height")


def _of_circle(shape: _Row) -> list[float] | None:
    numbers = _numbers(shape, "cx", "cy", "r")
    if numbers is None:
        return None
    cx, cy, radius = numbers
    return [cx - radius, cy - radius, 2 * radius, 2 * radius]


def _of_ellipse(shape: _Row) -> list[float] | None:
    """Return the box around an ellipse; its rotation `theta` is in radians, clockwise on the screen."""
    numbers, theta = _numbers(shape, "cx", "cy", "rx", "ry"), parse_number(shape.get("theta", 0))
    if numbers is None or theta is None:
        return None
    cx, cy, rx, ry = numbers
    return box_around_ellipse(cx, cy, rx, ry, math.degrees(theta))


def _of_polygon(shape: _Row) -> list[float] | None:
    rows = [shape.get("all_points_x"), shape.get("all_points_y")]
    columns = [parse_numbers(row, len(row)) if isinstance(row, list) else None for row in rows]
    x, y = columns
    return box_around(list(zip(x, y, strict=True))) if x and y and len(x) == len(y) >= 3 else None


_BOXES: Mapping[str, tuple[Callable[[_Row], list[float] | None], str]] = {
    "rect": (_of_rect, "the numbers x, y, width, height"),
    "circle": (_of_circle, "the numbers cx, cy, r"),
    "ellipse": (_of_ellipse, "the numbers cx, cy, rx, ry"),
    "polygon": (_of_polygon, "at least 3 numbers in all_points_x and as many in all_points_y"),
}
