"""Reads YOLO: a `data.yaml` with the classes and where the images are; beside each image a text file of objects."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path, PurePosixPath

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import first_file, from_another_machine, tails
from detr_ft.data.sources.listing import files_in, images_below
from detr_ft.data.sources.parsing import read_lines, read_text, shown
from detr_ft.data.sources.record import raise_with_faults, to_dataset
from detr_ft.data.sources.yolo_labels import LabelReader
from detr_ft.errors import InputError
from detr_ft.utils.yaml import parse_yaml

_YAML = {".yaml", ".yml"}
_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}

_MOST_CLASSES = 100_000

_NAMES_KEY = re.compile(rb"^['\"]?(names|nc)['\"]?\s*:", re.MULTILINE)

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Whether a path is a YAML file, or a folder with one that names classes."""
    return path.suffix.lower() in _YAML if path.is_file() else _yaml_file(path) is not None


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """The data set of a `data.yaml`, or of the folder that holds it. An image without a label file is background."""
    file = path if path.is_file() else _yaml_file(path)
    if file is None:
        raise InputError(f"{path}: no data.yaml found")
    settings = _settings(file)
    problems: list[str] = []
    names = _names(settings, file, problems)
    keypoints = _keypoints(settings, file, problems)
    images = _images(settings, file, problems)
    raise_all(problems)
    reader = LabelReader(names, keypoints)
    splits = {split: reader.read_split(paths) for split, paths in images.items()}
    raise_with_faults(reader.problems, splits)
    if not any(record.boxes for records in splits.values() for record in records):
        raise InputError(
            f"{file}: not one box found; label files belong into labels/ beside images/, or beside the images"
        )
    return SourceData(to_dataset(splits, list(names.values()), file))


def _yaml_file(folder: Path) -> Path | None:
    """The YAML file in a folder that describes a YOLO data set: `data.yaml`, or the only one that names classes."""
    files = files_in(folder, _YAML)
    naming = [f for f in files if _NAMES_KEY.search(_bytes(f))]  # a recipe beside the data doesn't
    return next((f for f in files if f.stem == "data"), naming[0] if len(naming) == 1 else None)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error


def _settings(file: Path) -> Mapping[str, object]:
    settings = parse_yaml(read_text(file), str(file))
    if not isinstance(settings, dict) or not any(key in settings for keys in _KEYS.values() for key in keys):
        raise InputError(f"{file}: not a YOLO data set: expected names, train and val")
    return settings


def _names(settings: Mapping[str, object], file: Path, problems: list[str]) -> dict[int, str]:
    """Names by the number that label files use, in ascending order."""
    value = settings.get("names")
    if value is None and "nc" in settings:
        return _numbered_names(settings["nc"], file, problems)
    pairs = dict(enumerate(value)) if isinstance(value, list) else value
    pairs = pairs if isinstance(pairs, dict) else {}
    numbered = {number: name for key, name in pairs.items() if (number := _whole(key)) is not None}
    if not numbered or len(numbered) < len(pairs):
        problems.append(f"{file}: names must be a list of class names, or a mapping from number to name")
        return {}
    names = {number: str(name) for number, name in sorted(numbered.items())}
    problems.extend(
        f"{file}: the class name {shown(name)} was read as no text: write it in quotes"
        for name in numbered.values()
        if not isinstance(name, (str, int, float, date)) or isinstance(name, bool)
    )
    twice = sorted(name for name, count in Counter(names.values()).items() if count > 1)
    problems.extend(f"{file}: the class name {name!r} is given twice" for name in twice)
    stated = settings.get("nc")
    if stated is not None and stated not in (len(names), max(names) + 1):
        problems.append(f"{file}: nc is {shown(stated)}, but there are {len(names)} names; correct one of them")
    return names


def _numbered_names(count: object, file: Path, problems: list[str]) -> dict[int, str]:
    """The names "0", "1", ... of classes that are only counted."""
    number = _whole(count)
    if not number or number > _MOST_CLASSES:
        problems.append(f"{file}: there are no names, and nc must be the number of classes, got {shown(count)}")
        return {}
    log.warning("%s: the %d classes have no names and are called by their numbers: names: [cat, ...]", file, number)
    return {index: str(index) for index in range(number)}


def _whole(key: object) -> int | None:
    """A class number as YAML reads it: plain, or in quotes."""
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10:
        return int(key)
    return key if isinstance(key, int) and not isinstance(key, bool) and key >= 0 else None


def _keypoints(settings: Mapping[str, object], file: Path, problems: list[str]) -> int:
    """How many numbers of keypoints follow each box: 0 where the data set has none."""
    match settings.get("kpt_shape"):
        case None:
            return 0
        case [int(count), (2 | 3) as numbers_each] if count > 0:
            return count * int(numbers_each)
    problems.append(f"{file}: kpt_shape must be two numbers: how many keypoints, and 2 or 3 numbers for each")
    return 0


def _images(settings: Mapping[str, object], file: Path, problems: list[str]) -> dict[str, list[Path]]:
    root = file.parent / str(settings.get("path") or "")
    images: dict[str, list[Path]] = {}
    for split, keys in _KEYS.items():
        value = next((settings[key] for key in keys if settings.get(key)), None)
        entries = value if isinstance(value, list) else [value] if value else []
        for entry in map(str, entries):
            place = _resolve(entry, root, file.parent)
            if place:
                found = _listed(place, (root, file.parent), problems) if place.is_file() else images_below(place)
                images.setdefault(split, []).extend(found)
            elif split == "test":
                # Exports without a test split keep the line.
                log.warning("%s: the test images %s don't exist; going on without a test split", file, entry)
            else:
                problems.append(f"{file}: the images of {split} are not at {entry} (relative to {root})")
    return {split: _once(paths, split, file) for split, paths in images.items()}


def _once(paths: list[Path], split: str, file: Path) -> list[Path]:
    once = list(dict.fromkeys(path.absolute() for path in paths))
    if len(once) < len(paths):
        log.warning("%s: %d images of %s are given twice and are taken once", file, len(paths) - len(once), split)
    return once


def _resolve(entry: str, root: Path, home: Path) -> Path | None:
    """Where an entry of the YAML file is: below `path:`, beside the file, or, as Roboflow writes it, one level too high.

    Of a path on another machine the end is looked for, as long as it tells more than `images`.
    """
    bases = (root, home)
    telling = [tail for tail in tails(entry) if len(tail.parts) > 1 or tail.name not in ("images", "labels")]
    places = [*(base / entry for base in bases), *(base / tail for tail in telling for base in bases)]
    found = first_file(places, os.path.exists)
    if found and PurePosixPath(entry).is_absolute() and not os.path.exists(entry):
        log.warning("%s is not on this machine; taking %s", entry, found.resolve())
    return found and found.resolve()


def _listed(file: Path, bases: tuple[Path, ...], problems: list[str]) -> list[Path]:
    """The images that a .txt file lists, one a line: below `path:` or beside the file, else wherever its path ends.

    An image that is nowhere stays in the list, for the doctor; a list of which nothing is found is a problem.
    """
    bases = (*bases, file.parent)
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    found = [first_file(from_another_machine(line, bases)) for line in lines]
    if lines and not any(found):
        problems.append(f"{file}: none of the {len(lines)} images that it lists is here, for example {lines[0]}")
    return [path or bases[-1] / line for path, line in zip(found, lines, strict=True)]
