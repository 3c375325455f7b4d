"""Read Pascal VOC: XML files with `ImageSets/Main`, in a folder for each split, or neither.

Corners are read as written: a box from xmin 10 to xmax 12 is 2 pixels wide. The original VOC counts pixels from 1 and
includes the last one. Most VOC files today (LabelImg, CVAT, Roboflow) have plain corners, and a file does not state
which. For an original VOC file the difference is one pixel.
"""

from __future__ import annotations

import logging
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.listing import files_below, files_in, split_folders, split_of
from detr_ft.data.sources.parsing import XML_ERRORS, parse_flag, parse_number, parse_numbers, parse_xml, read_lines
from detr_ft.data.sources.record import Flags, Record, to_dataset, used_names
from detr_ft.errors import InputError

_SETS = Path("ImageSets", "Main")
_SET_WORDS = ("train", "trainval", "val", "valid", "validation", "test")

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a folder has XML files in a layout of VOC."""
    return path.is_dir() and bool(_files(path, []))


def read(folder: Path, box_format: BoxFormat | None) -> SourceData:
    """Read a VOC folder, with `difficult` and `truncated`; classes are sorted by name.

    The image of an XML file is the one that it states. If that is missing, it is the one with the XML file's name,
    which is logged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: must be the folder with Annotations/ and JPEGImages/")
    problems: list[str] = []
    files = _files(folder, problems)
    if not files and not problems:
        raise InputError(f"{folder}: no VOC annotations, expected Annotations/*.xml and JPEGImages/")
    images = _Images(folder)
    splits = {split: _read_split(paths, images, problems) for split, paths in files.items()}
    raise_all(problems)
    images.log_substitutes()
    return SourceData(to_dataset(splits, sorted(used_names(splits)), folder))


def _files(folder: Path, problems: list[str]) -> dict[str, list[Path]]:
    """Return the XML files of each split; lines of image sets without one are added to `problems`."""
    if (folder / _SETS).is_dir():
        image_sets = _image_sets(folder / _SETS)
        if image_sets:
            return {split: _listed_files(folder, lists, problems) for split, lists in image_sets.items()}
    whole = files_below(folder / "Annotations", {".xml"}) + files_in(folder, {".xml"})
    if whole:
        return {"train": whole}
    parts = {split: files_below(child, {".xml"}) for split, child in split_folders(folder)}
    return {split: paths for split, paths in parts.items() if paths}


def _image_sets(folder: Path) -> dict[str, list[Path]]:
    """Return the lists of each split: `train.txt`, else those of all classes (`dog_train.txt`)."""
    lists: dict[str, list[Path]] = {}
    of_classes: dict[str, list[Path]] = {}
    for path in files_in(folder, {".txt"}):
        word = path.stem.lower().rpartition("_")[2]
        if word in _SET_WORDS:
            (lists if word == path.stem.lower() else of_classes).setdefault(word, []).append(path)
    by_split: dict[str, list[Path]] = {}
    for word, paths in (lists or of_classes).items():
        # `trainval` repeats the other lists if they exist.
        split = split_of(word)
        if split and not (word == "trainval" and "train" in (lists or of_classes)):
            by_split.setdefault(split, []).extend(paths)
    return by_split


def _listed_files(folder: Path, image_sets: list[Path], problems: list[str]) -> list[Path]:
    """Return the annotation files in the lists; lines of a class's list end with 1, -1 or 0."""
    files: dict[Path, None] = {}
    for image_set in image_sets:
        for number, line in enumerate(read_lines(image_set), start=1):
            names = dict.fromkeys((line.strip(), re.sub(r"\s+(-1|0|1)$", "", line.strip())))
            paths = [folder / "Annotations" / f"{name}.xml" for name in names if name]
            path = next((path for path in paths if os.path.isfile(path)), None)
            if path:
                files[path] = None
            elif paths:
                problems.append(f"{image_set}, line {number}: annotation file {paths[-1]} does not exist")
    return list(files)


def _read_split(paths: list[Path], images: _Images, problems: list[str]) -> list[Record]:
    records = []
    for image_id, path in enumerate(paths):
        try:
            records.append(_read_file(path, image_id, images, problems))
        except XML_ERRORS as error:
            problems.append(f"{path}: not valid XML of Pascal VOC ({error})")
    return records


def _read_file(path: Path, image_id: int, images: _Images, problems: list[str]) -> Record:
    root = parse_xml(path)
    if root.tag.lower() != "annotation":
        raise ValueError(f"the root must be <annotation>, got <{root.tag}>")
    image = images.find(path, (root.findtext("filename") or "").strip())
    width, height = (parse_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    record = Record.with_size(image.absolute(), image_id, width, height)
    for index, item in enumerate(root.findall("object")):
        _add_object(record, item, f"{path}: object {index}", problems)
    return record


def _add_object(record: Record, item: ElementTree.Element, where: str, problems: list[str]) -> None:
    """Append an object, once for each of its boxes. Boxes of its parts (head, hand) are left out."""
    name = (item.findtext("name") or "").strip()
    corners = [
        parse_numbers([box.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")], 4)
        for box in item.findall("bndbox")
    ]
    if not name:
        problems.append(f"{where} must have a name")
    if not corners or None in corners:
        problems.append(f"{where} must have a bndbox with the numbers xmin, ymin, xmax, ymax")
    difficult, truncated = (parse_flag(item.findtext(key), key, where, problems) for key in ("difficult", "truncated"))
    flags = Flags(difficult=difficult, truncated=truncated)
    for x0, y0, x1, y1 in (values for values in corners if name and values):
        record.add([x0, y0, x1 - x0, y1 - y0], name, flags=flags)


class _Images:
    """Finds the images of annotation files, and records those that have another name than stated."""

    def __init__(self, origin: Path) -> None:
        self.origin = origin
        self._finder = ImageFinder(origin)
        self._substitutes: list[tuple[Path, str, Path]] = []

    def find(self, annotation: Path, stated: str) -> Path:
        """Return the image that the XML file states, else one with that stem or the stem of the XML file.

        If there is none, return the path where it is expected.
        """
        root, below = _around_annotations(annotation)
        folders = [root / "JPEGImages" / below, annotation.parent, root / "images" / below]
        stated = stated.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
        path = self._finder.find_in((stated, Path(stated).stem, annotation.stem), folders)
        if path is None:
            folder = next(filter(self._finder.has_images, folders), folders[0])
            return folder / (stated or f"{annotation.stem}.jpg")
        if stated not in ("", path.name, path.stem):
            self._substitutes.append((annotation, stated, path))
        return path

    def log_substitutes(self) -> None:
        """Log the number of files whose stated image is missing and was replaced."""
        if self._substitutes:
            annotation, stated, path = self._substitutes[0]
            log.warning(
                "%s: %d XML files name a missing image, and the image with the most similar name is used: "
                "%s names %s, used is %s. Correct <filename> if that is wrong",
                self.origin, len(self._substitutes), annotation, stated, path,
            )  # fmt: skip


def _around_annotations(file: Path) -> tuple[Path, Path]:
    """Return the parent of `Annotations` and the file's subfolder in it, else the file's grandparent."""
    for folder in file.parents:
        if folder.name.lower() == "annotations":
            return folder.parent, file.parent.relative_to(folder)
    return file.parent.parent, Path()
