"""Reads YOLO: a `data.yaml`, one text file of boxes (or polygons) for each image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import yaml
from datasets import DatasetDict

from detr_ft.data.sources.records import (
    Record,
    images_in,
    measured_size,
    numbers,
    raise_all,
    read_text,
    to_dataset,
)
from detr_ft.errors import UserError

_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}

log = logging.getLogger(__name__)


def read_yolo(path: Path) -> DatasetDict:
    """The data set of a `data.yaml`, or of the folder that holds it. An image without a label file is background."""
    file = path if path.is_file() else yolo_file(path)
    if file is None:
        raise UserError(f"{path}: no data.yaml found")
    settings = _settings(file)
    problems: list[str] = []
    names = _names(settings.get("names"), file, problems)
    images = _images(settings, file, problems)
    raise_all(problems)
    splits = {split: _read_split(paths, names, problems) for split, paths in images.items()}
    raise_all(problems)
    if not any(record.boxes for records in splits.values() for record in records):
        raise UserError(
            f"{file}: not one box found; label files belong into labels/ beside images/, or beside the images"
        )
    return to_dataset(splits, list(names.values()), file)


def yolo_file(folder: Path) -> Path | None:
    """The YAML file in a folder that describes a YOLO data set: `data.yaml`, or the only one there is."""
    files = sorted(f for f in folder.iterdir() if f.suffix in (".yaml", ".yml"))
    return next((f for f in files if f.stem == "data"), files[0] if len(files) == 1 else None)


def _settings(file: Path) -> Mapping[str, object]:
    try:
        settings = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML ({error})") from error
    if not isinstance(settings, dict) or not any(key in settings for keys in _KEYS.values() for key in keys):
        raise UserError(f"{file}: not a YOLO data set: expected names, train and val")
    return settings


def _names(value: object, file: Path, problems: list[str]) -> dict[int, str]:
    """Names by the number that label files use, in ascending order."""
    pairs = dict(enumerate(value)) if isinstance(value, list) else value
    if not isinstance(pairs, dict) or not pairs or not all(isinstance(key, int) for key in pairs):
        problems.append(f"{file}: names must be a list of class names, or a mapping from number to name")
        return {}
    names = {number: str(name) for number, name in sorted(pairs.items())}
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    problems.extend(f"{file}: the class name {name!r} is given twice" for name in twice)
    return names


def _images(settings: Mapping[str, object], file: Path, problems: list[str]) -> dict[str, list[Path]]:
    root = file.parent / str(settings.get("path") or "")
    images: dict[str, list[Path]] = {}
    for split, keys in _KEYS.items():
        value = next((settings[key] for key in keys if settings.get(key)), None)
        entries = value if isinstance(value, list) else [value] if value else []
        for entry in map(str, entries):
            place = _resolve(entry, root, file.parent)
            if place:
                images.setdefault(split, []).extend(_listed(place, root) if place.is_file() else images_in(place))
            elif split == "test":
                # Exports without a test split keep the line.
                log.warning("%s: the test images %s don't exist; going on without a test split", file, entry)
            else:
                problems.append(f"{file}: the images of {split} are not at {entry} (relative to {root})")
    return images


def _resolve(entry: str, root: Path, home: Path) -> Path | None:
    """Where an entry of the YAML file is: below `path:`, beside the file, or, as Roboflow writes it, one level too high."""
    lowered = entry.replace("\\", "/")
    while lowered.startswith("../"):
        lowered = lowered.removeprefix("../")
    places = (root / entry, home / entry, root / lowered, home / lowered)
    return next((place.resolve() for place in places if place.exists()), None)


def _listed(file: Path, root: Path) -> Iterator[Path]:
    """The images that a .txt file lists, one a line: relative to `path:` or, where it isn't there, to the file."""
    for line in filter(None, map(str.strip, read_text(file).splitlines())):
        yield next((place for place in (root / line, file.parent / line) if place.is_file()), file.parent / line)


def _read_split(paths: list[Path], names: Mapping[int, str], problems: list[str]) -> list[Record]:
    records = []
    for image_id, path in enumerate(paths):
        record = Record(path.absolute(), image_id, *measured_size(path))
        label = _label_file(record.path)
        for number, line in enumerate(read_text(label).splitlines() if label else [], start=1):
            if line.strip():
                _add_row(record, line.split(), names, f"{label}, line {number}", problems)
        records.append(record)
    return records


def _label_file(image: Path) -> Path | None:
    """The image's text file: in `labels/` where the path says `images/`, else beside it; None if there is none."""
    places = [image.with_suffix(".txt")]
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        places.insert(0, Path(*parts[:last], "labels", *parts[last + 1 :]).with_suffix(".txt"))
    return next((place for place in places if place.is_file()), None)


def _add_row(record: Record, words: list[str], names: Mapping[int, str], where: str, problems: list[str]) -> None:
    values = numbers(words, len(words))
    is_box, is_polygon = len(words) == 5, len(words) >= 7 and len(words) % 2 == 1
    if values is None or not (is_box or is_polygon):
        expected = "a class and a box (4 numbers) or a polygon (3 points or more)"
        problems.append(f"{where}: expected {expected}, got {' '.join(words)[:80]!r}")
    elif values[0] not in names:
        problems.append(f"{where}: class {words[0]} isn't among the names (0 to {max(names)})")
    else:
        x, y, w, h = _centre_and_size(values[1:]) if is_polygon else values[1:]
        width, height = record.width, record.height
        record.add([(x - w / 2) * width, (y - h / 2) * height, w * width, h * height], names[int(values[0])])


def _centre_and_size(polygon: list[float]) -> list[float]:
    points = np.asarray(polygon).reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    return [*((low + high) / 2).tolist(), *(high - low).tolist()]
