"""Read YOLO: a `data.yaml` with classes and image folders, and a text file of objects for each image.

Without a `data.yaml`, the classes are those of `classes.txt` (Label Studio's export), and the images those in the folder.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import date
from pathlib import Path, PurePosixPath

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources import darknet
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data
from detr_ft.data.sources.image_finder import (
    FolderIndex,
    ImageFinder,
    candidate_paths,
    first_file,
    path_tails,
    plain_path,
    without_drive,
)
from detr_ft.data.sources.listing import files_below, files_in, images_below
from detr_ft.data.sources.parsing import read_lines, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.yolo_labels import LabelReader, is_label_file
from detr_ft.errors import InputError
from detr_ft.utils.files import read_regular
from detr_ft.utils.yaml import parse_yaml

_YAML_SUFFIXES = {".yaml", ".yml"}
_CLASS_FILES = ("classes.txt", "labels.txt")
_SPLIT_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}

_COMMON_FOLDERS = ("", "images", "labels")  # in any data set
_MAX_CLASSES = 100_000

_NAMES_KEY = re.compile(rb"^(?:\xef\xbb\xbf)?['\"]?(names|nc)['\"]?\s*:", re.MULTILINE)

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a path is a YAML file, or a folder with one, or with classes and label files."""
    if path.is_file():
        return path.suffix.lower() in _YAML_SUFFIXES
    return _yaml_file(path) is not None or _class_file(path) is not None


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a `data.yaml`, or the one of a folder. An image without a label file has no objects."""
    file = path if path.is_file() else _yaml_file(path) or _class_file(path)
    if file is None and darknet.recognizes(path):
        return darknet.read(path, options)
    if file is None:
        raise InputError(
            f"{path}: no data.yaml and no {_CLASS_FILES[0]} with the names of the classes. Name the YAML file, as in yolo:FILE"
        )
    reasons: list[str] = []
    problems: list[Problem] = []
    if file.suffix.lower() in _YAML_SUFFIXES:
        settings = _settings(file)
        names = _names(settings, file, reasons, problems)
        keypoints = _num_keypoint_values(settings, file, reasons)
        missing: list[str] = []
        split_by: str | None = file.name
        images = _images(settings, file, options.images, reasons, missing)
        if not images and not missing:  # as supervision writes it
            images, split_by = _all_images(file, options.images), None
        if reasons or not any(images.values()):
            reasons += missing
        problems += [Problem("unreadable annotation", message, count=0) for message in missing]
    else:
        names, keypoints = darknet.class_names(file), None
        images, split_by = _all_images(file, options.images), None
    raise_all(reasons)
    reader = LabelReader(names, keypoints, file.parent)
    splits = reader.read(images)
    raise_all(reader.reasons)
    if not any(record.boxes or record.unreadable for records in splits.values() for record in records):
        raise InputError(
            f"{file}: no box in any label file. Put label files in labels/ beside images/, or beside the images"
        )
    return to_source_data(splits, list(names.values()), file, [*problems, *reader.problems], split_by=split_by)


def _class_file(folder: Path) -> Path | None:
    """Return the file of class names of a folder with label files, else None."""
    file = next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)
    if file is None:
        return None
    labels = (label for label in files_below(folder, {".txt"}) if label.name not in _CLASS_FILES)
    return file if any(map(is_label_file, labels)) else None


def _yaml_file(folder: Path) -> Path | None:
    """Return the `data.yaml` of a folder, else its only YAML file that names classes, else None."""
    files = [file for file in files_in(folder, _YAML_SUFFIXES) if file.is_file()]
    with_names = [file for file in files if _NAMES_KEY.search(_read_bytes(file))]  # not a recipe beside the data
    only = with_names[0] if len(with_names) == 1 else None
    return next((file for file in files if file.stem == "data"), only)


def _read_bytes(file: Path) -> bytes:
    try:
        return read_regular(file)
    except OSError as error:
        raise InputError(f"{file}: can't be read ({error})") from error


def _settings(file: Path) -> Mapping[str, object]:
    settings = parse_yaml(read_text(file), str(file))
    keys = {"names", "nc", *(key for keys in _SPLIT_KEYS.values() for key in keys)}
    if not isinstance(settings, dict) or not keys & settings.keys():
        raise InputError(f"{file}: not a YOLO data set, must have names, train and val")
    return settings


def _names(settings: Mapping[str, object], file: Path, reasons: list[str], problems: list[Problem]) -> dict[int, str]:
    """Return the class names by their numbers in label files, in ascending order.

    Without usable names, `reasons` get the causes. Another number of classes than names is added to `problems`.
    """
    value = settings.get("names")
    if value is None and "nc" in settings:
        return _numbered_names(settings["nc"], file, reasons)
    pairs = dict(enumerate(value)) if isinstance(value, list) else value
    pairs = pairs if isinstance(pairs, dict) else {}
    numbered = {number: name for key, name in pairs.items() if (number := _class_number(key)) is not None}
    if not numbered or len(numbered) < len(pairs):
        reasons.append(f"{file}: names must be a list of class names, or a mapping from number to name")
        return {}
    names = {number: str(name) for number, name in sorted(numbered.items())}
    reasons.extend(
        f"{file}: the class name {shown(name)} must be text. Write it in quotes"
        for name in numbered.values()
        if not isinstance(name, (str, int, float, date)) or isinstance(name, bool)
    )
    duplicates = sorted(name for name, count in Counter(names.values()).items() if count > 1)
    reasons.extend(f"{file}: the class name {name!r} occurs twice, must be unique" for name in duplicates)
    stated = settings.get("nc")
    if stated is not None and stated not in (len(names), max(names) + 1):
        message = f"{file}: nc must be {len(names)}, the number of names, got {shown(stated)}. The names are used"
        problems.append(Problem("contradiction", message, count=0))
    return names


def _numbered_names(count: object, file: Path, problems: list[str]) -> dict[int, str]:
    """Return the names "0", "1", ... of classes without names."""
    number = _class_number(count)
    if not number or number > _MAX_CLASSES:
        problems.append(f"{file}: there are no names, and nc must be the number of classes, got {shown(count)}")
        return {}
    log.warning("%s: the %d classes have no names and are named by their numbers. Add names: [cat, ...]", file, number)
    return {index: str(index) for index in range(number)}


def _class_number(key: object) -> int | None:
    """Return a class number, also from text, None for anything else."""
    if isinstance(key, str) and key.isascii() and key.isdigit() and len(key) < 10:
        return int(key)
    return key if isinstance(key, int) and not isinstance(key, bool) and key >= 0 else None


def _num_keypoint_values(settings: Mapping[str, object], file: Path, problems: list[str]) -> int | None:
    """Return the number of keypoint values after each box; None if the file does not state it."""
    match settings.get("kpt_shape"):
        case None:
            return None
        case [int(count), (2 | 3) as values_each] if count > 0:
            return count * int(values_each)
    got = shown(settings["kpt_shape"])
    problems.append(f"{file}: kpt_shape must be [number of keypoints, 2 or 3 values for each], got {got}")
    return None


def _images(
    settings: Mapping[str, object], file: Path, given: Path | None, reasons: list[str], missing: list[str]
) -> dict[str, list[Path]]:
    """Return the images of each split; `given` is the user's folder of images.

    `missing` gets a message for each entry of train and validation that does not exist.
    """
    root = file.parent / str(settings.get("path") or "")
    bases = (root, file.parent) if given is None else (given, root, file.parent)
    images: dict[str, list[Path]] = {}
    for split, keys in _SPLIT_KEYS.items():
        value = next((settings[key] for key in keys if settings.get(key)), None)
        entries = value if isinstance(value, list) else [value] if value else []
        for entry in map(str, entries):
            path = _resolve(entry, bases)
            beside = _labeled_images(entry, bases, given) if given and not path else []
            if beside:
                images.setdefault(split, []).extend(beside)
            elif path:
                inside = _read_list(path, bases, reasons) if path.is_file() else images_below(path)
                images.setdefault(split, []).extend(inside)
            elif split == "test":
                # Exports without a test split have the key all the same.
                log.warning("%s: the test images %s do not exist; there is no test split", file, entry)
            else:
                missing.append(
                    f"{file}: the images of {split} are not at {entry} (relative to {root}). "
                    f"{_images_instead(file.parent)}Correct the path"
                )
    return {split: _unique(paths, split, file) for split, paths in images.items()}


def _all_images(file: Path, given: Path | None) -> dict[str, list[Path]]:
    """Return the images below the user's folder, else below that of the file of names."""
    return {"train": [path.absolute() for path in images_below(given or file.parent)]}


def _labeled_images(entry: str, bases: tuple[Path, ...], given: Path) -> list[Path]:
    """Return the images in the user's folder for the label files of an entry such as `images/train`."""
    words = PurePosixPath(entry.replace("\\", "/")).parts
    labels = PurePosixPath(*("labels" if word == "images" else word for word in words))
    folder = _resolve(str(labels), bases)
    index, names = FolderIndex(IMAGE_SUFFIXES), files_below(folder, {".txt"}) if folder and folder.is_dir() else []
    return [image for file in names if (image := index.get(given, file.name))]


def _images_instead(root: Path) -> str:
    """Return a sentence on the folders below that have images, empty if there are none."""
    counts = Counter(path.parent for path in images_below(root))
    listed = ", ".join(f"{folder} ({count})" for folder, count in counts.most_common(3))
    return f"Images are in {listed}. " if counts else ""


def _unique(paths: list[Path], split: str, file: Path) -> list[Path]:
    unique = list(dict.fromkeys(path.absolute() for path in paths))
    if len(unique) < len(paths):
        log.warning("%s: %d duplicates among the images of %s are left out", file, len(paths) - len(unique), split)
    return unique


def _resolve(entry: str, bases: tuple[Path, ...]) -> Path | None:
    """Return the path of an entry of the YAML file, None if it does not exist.

    It starts at `path:` or at the file's folder, or one level above as Roboflow writes it. Of a path on another machine
    a tail is used, unless that is only `images` or `labels`.
    """
    tails = [tail for tail in path_tails(entry) if len(tail.parts) > 1 or tail.name not in _COMMON_FOLDERS]
    candidates = [*(base / entry for base in bases), *(base / tail for tail in tails for base in bases)]
    path = first_file(candidates, os.path.exists)
    if path and PurePosixPath(entry).is_absolute() and not os.path.exists(entry):
        log.warning("%s is not on this machine; %s is used", entry, path.absolute())
    # Links are not resolved: labels are beside a link, not beside its target.
    return path and Path(os.path.abspath(path))


def _read_list(file: Path, bases: tuple[Path, ...], problems: list[str]) -> list[Path]:
    """Return the images in a .txt file, one a line.

    Paths start at `path:` or at the file's folder, or a tail of them does. A missing image stays in the list, for the
    doctor to report. A list without a single existing image is a problem.
    """
    bases = (*bases, file.parent)
    lines = [line.strip() for line in read_lines(file) if line.strip()]
    folders = [first_file(candidate_paths(line, bases), os.path.isdir) for line in lines]
    if lines and all(folders):  # also a link to a folder that was copied as text
        return [image for folder in folders if folder for image in images_below(folder)]
    paths = [first_file(candidate_paths(line, bases)) for line in lines]
    if not any(paths):  # below a folder that the lines don't name
        finder = ImageFinder(first_file(bases, os.path.isdir) or file.parent)
        paths = [_only_image(line, finder) for line in lines]
    if lines and not any(paths):
        problems.append(f"{file}: none of its {len(lines)} images exists, for example {lines[0]}. Correct the paths")
    return [path or bases[-1] / line for path, line in zip(paths, lines, strict=True)]


def _only_image(line: str, finder: ImageFinder) -> Path | None:
    """Return the image in a folder of the same name as in a list, None without one or for several."""
    messages: list[str] = []
    name = without_drive(plain_path(line))
    path, folder = finder.locate(name, "", messages), PurePosixPath(name).parent.name
    is_same = path is not None and path.parent.name == folder and folder not in _COMMON_FOLDERS
    return path if is_same and not messages else None
