"""Read Darknet: class names, a list of images for each split, and a label file of YOLO for each image.

`obj.data` has the paths of the names and lists, as in CVAT's export "YOLO 1.1". Without it, lists are recognized by their
names. Without lists (Roboflow's export "YOLO Darknet"), the images are those in the folder.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from detr_ft.data.images import IMAGE_SUFFIXES
from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data
from detr_ft.data.sources.image_finder import ImageFinder, candidate_paths, first_file, path_tails
from detr_ft.data.sources.listing import files_below, files_in, images_below, split_folders, split_of
from detr_ft.data.sources.parsing import read_lines
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.yolo_labels import LabelReader, is_label_file
from detr_ft.errors import InputError

_SPLIT_KEYS = ("train", "valid", "val", "test")
_ROBOFLOW_NAMES = "_darknet.labels"
_MAX_SETTINGS_BYTES = 1 << 16

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Layout:
    """The files of a data set; `settings` is `obj.data` if there is one."""

    root: Path
    names: Path
    settings: Path | None = None


def recognizes(path: Path) -> bool:
    """Return whether a path is an `obj.data`, or a folder with one or with class names and label files."""
    return _layout(path) is not None


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a folder with `obj.data` or `obj.names`, or one of these files.

    Classes are in the order of the names. Images are those in the lists, whose paths start at the folder, at a folder
    above it, or on another machine. An image without a label file has no objects.
    """
    layout = _layout(path)
    if layout is None:
        raise InputError(
            f"{path}: no obj.data with the keys names and train, and no obj.names beside label files. "
            "Export the task as 'YOLO 1.1' or 'YOLO Darknet'"
        )
    names = class_names(layout.names)
    for other in (folder / _ROBOFLOW_NAMES for folder in _split_folders(layout.root)):
        if other.is_file() and class_names(other) != names:
            raise InputError(f"{other}: has other classes than {layout.names}. Export the splits with the same classes")
    finder = ImageFinder(layout.root, images=options.images)
    problems: list[Problem] = []
    lists = _lists(layout)
    if lists:
        images = {split: _listed_images(file, finder, problems) for split, file in lists.items()}
        raise_all(finder.all_missing(layout.settings or layout.root))
        finder.log_substitutes(layout.root)
        _log_unlisted(images, finder.root)
    else:
        images = {"train": [image.absolute() for image in images_below(finder.root)]}
    reader = LabelReader(names, None, layout.root)
    splits = reader.read(images)
    raise_all(reader.reasons)
    if not any(record.boxes or record.unreadable for records in splits.values() for record in records):
        raise InputError(f"{layout.root}: no box in any label file. Put the label files beside the images")
    return to_source_data(
        splits,
        list(names.values()),
        layout.root,
        [*problems, *reader.problems],
        split_by="the lists of images" if lists else None,
    )


def _layout(path: Path) -> _Layout | None:
    if path.is_file():
        return _layout_of_settings(path) if path.suffix == ".data" else _layout_of_names(path)
    for folder in (path, path / "data"):
        for settings in files_in(folder, {".data"}):
            layout = _layout_of_settings(settings)
            if layout:
                return layout
    names = [*files_in(path, {".names"}), *(folder / _ROBOFLOW_NAMES for folder in _split_folders(path))]
    file = first_file(names)
    layout = _layout_of_names(file) if file else None
    return _Layout(path, layout.names) if layout else None


def _split_folders(folder: Path) -> list[Path]:
    """Return a folder and its subfolders that are named after a split."""
    return [folder, *(child for _, child in split_folders(folder))]


def _layout_of_settings(file: Path) -> _Layout | None:
    """Return the layout that an `obj.data` describes, None for another file."""
    values = _settings(file)
    beside = files_in(file.parent, {".names"})
    names = first_file(candidate_paths(values["names"], [file.parent])) if values.get("names") else None
    names = names or next((other for other in beside if other.name == "obj.names"), next(iter(beside), None))
    return _Layout(file.parent, names, file) if names and (values or not file.stat().st_size) else None


def _layout_of_names(file: Path) -> _Layout | None:
    """Return the layout of a file of class names with label files beside or below, else None."""
    if file.suffix not in (".names", ".labels"):
        return None
    labels = any(is_label_file(other) for other in files_below(file.parent, {".txt"}))
    return _Layout(file.parent, file) if labels else None


def _settings(file: Path) -> Mapping[str, str]:
    """Return the values of an `obj.data` by their keys, of lines such as `train = data/train.txt`."""
    if file.stat().st_size > _MAX_SETTINGS_BYTES:
        return {}
    try:
        pairs = [line.partition("=") for line in read_lines(file)]
    except InputError:  # another kind of file
        return {}
    return {key.strip(): value.strip() for key, equals, value in pairs if equals and value.strip()}


def class_names(file: Path) -> dict[int, str]:
    """Return the class names by their numbers in label files. Raises InputError."""
    lines = [line.strip() for line in read_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    problems = [
        f"{file}, line {number}: must be the name of a class" for number, name in enumerate(lines, 1) if not name
    ]
    if not lines:
        problems.append(f"{file}: must have the name of a class in each line")
    duplicates = sorted(name for name, count in Counter(lines).items() if name and count > 1)
    problems.extend(f"{file}: the class name {name!r} occurs twice, must be unique" for name in duplicates)
    raise_all(problems)
    return dict(enumerate(lines))


def _lists(layout: _Layout) -> dict[str, Path]:
    """Return the list of images of each split, from `obj.data`, else by the names of the lists."""
    if layout.settings is None:
        files = [file for file in files_in(layout.root, {".txt"}) if file.stem.lower() in _SPLIT_KEYS]
        return {str(split_of(file.stem)): file for file in files if _is_list(file)}
    values = _settings(layout.settings)
    lists: dict[str, Path] = {}
    problems = []
    for key in _SPLIT_KEYS:
        entry = values.get(key)
        file = first_file(candidate_paths(entry, [layout.root])) if entry else None
        if entry and file is None:
            problems.append(f"{layout.settings}: the list of {key} images is not at {entry}. Correct the path")
        elif file and file in lists.values():
            log.warning("%s: %s has the same list of images as another split and is left out", layout.settings, key)
        elif file:
            lists.setdefault(str(split_of(key)), file)
    raise_all(problems)
    if not lists:
        raise InputError(f"{layout.settings}: names no list of images, must have train = FILE or valid = FILE")
    return lists


def _is_list(file: Path) -> bool:
    """Return whether the first line of a file is the path of an image."""
    first = next((line.strip() for line in read_lines(file) if line.strip()), "")
    return PurePosixPath(first.replace("\\", "/")).suffix.lower() in IMAGE_SUFFIXES


def _listed_images(file: Path, finder: ImageFinder, problems: list[Problem]) -> list[Path]:
    """Return the images in a list, also missing ones, which the doctor reports."""
    images: dict[Path, None] = {}
    messages: list[str] = []
    count = 0
    for number, line in enumerate(read_lines(file), start=1):
        if line.strip():
            images[_find(line.strip(), finder, f"{file}, line {number}", messages)] = None
            count += 1
    if len(images) < count:
        log.warning("%s: %d duplicates in the list are left out", file, count - len(images))
    problems += [Problem("unreadable annotation", message) for message in messages]
    return list(images)


def _find(entry: str, finder: ImageFinder, where: str, messages: list[str]) -> Path:
    """Return the image at an entry's path or a tail of it.

    If none exists, it is the one with that name in the folder of the entry. If that folder does not exist, it is searched
    for below the root.
    """
    path = first_file(candidate_paths(entry, [finder.root]))
    if path:
        finder.note_found()
        return Path(os.path.abspath(path))
    folders = (finder.root / tail.parent for tail in path_tails(entry) if len(tail.parts) > 1)
    folder = first_file(folders, os.path.isdir)
    if folder is None:
        return finder.find(entry, where, messages)
    name = PurePosixPath(entry.replace("\\", "/")).name
    path = finder.find_in([name], [folder])
    if path is None:
        finder.note_missing(entry)
        return folder / name
    finder.note_found()
    return path


def _log_unlisted(images: Mapping[str, list[Path]], root: Path) -> None:
    listed = {path for paths in images.values() for path in paths}
    others = [path for path in images_below(root) if path.absolute() not in listed]
    if others:
        log.warning("%s: %d images are in no list and are left out, the first is %s", root, len(others), others[0])
