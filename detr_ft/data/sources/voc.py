"""Read Pascal VOC: an XML file for each image, with `ImageSets/Main`, folders of splits, or neither.

Corners are read as written: a box from xmin 10 to xmax 12 is 2 pixels wide. The original VOC counts pixels from 1 and
includes the last one. Most VOC files today (LabelImg, CVAT, Roboflow) have plain corners, and a file does not state
which. For an original VOC file the difference is one pixel.
"""

from __future__ import annotations

import logging
import math
import os
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.image_finder import FolderIndex, ImageFinder, folder_of_images
from detr_ft.data.sources.listing import files_below, files_in, split_of, split_of_path
from detr_ft.data.sources.parsing import XML_ERRORS, parse_flag, parse_number, parse_numbers, parse_xml, read_lines
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.recognition import most_common, xml_root
from detr_ft.data.sources.record import Flags, Record, to_source_data, used_names
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_rotated
from detr_ft.errors import InputError

_SETS = Path("ImageSets", "Main")
_SET_WORDS = ("train", "trainval", "val", "valid", "validation", "test")

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether most XML files of a folder are Pascal VOC's."""
    return path.is_dir() and most_common(files_below(path, {".xml"}), xml_root) == "annotation"


def read(folder: Path, options: ReadOptions) -> SourceData:
    """Read a VOC folder, with `difficult` and `truncated`; classes are sorted by name.

    The image of an XML file is the one that it states. If that is missing, it is the one with the XML file's name,
    which is logged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder with an XML file for each image")
    problems: list[Problem] = []
    files, split_by = _files(folder, problems)
    if not any(files.values()):
        raise InputError(f"{folder}: no XML files of Pascal VOC, expected Annotations/*.xml and JPEGImages/")
    images = _Images(folder, options.images)
    splits = {
        split: [_read_file(path, index, images) for index, path in enumerate(paths)] for split, paths in files.items()
    }
    raise_all(images.finder.all_missing(folder))
    images.log_substitutes()
    names = sorted(used_names(splits) - {""})
    return to_source_data(splits, names, folder, problems, split_by=split_by)


def _files(folder: Path, problems: list[Problem]) -> tuple[dict[str, list[Path]], str | None]:
    """Return the XML files of each split and what decides on it.

    Listed images without XML files are added to `problems`.
    """
    if (folder / _SETS).is_dir():
        image_sets = _image_sets(folder / _SETS)
        if image_sets:
            listed = {split: _listed_files(folder, lists, problems) for split, lists in image_sets.items()}
            return {split: paths for split, paths in listed.items() if paths}, f"the lists in {_SETS}"
    files = []
    for path in files_below(folder, {".xml"}):
        root = xml_root(path)
        if root in (None, "annotation", "Annotation"):
            files.append(path)
        else:
            problems.append(
                Problem("lost annotation", f"{path}: not Pascal VOC's, the root must be <annotation>, got <{root}>")
            )
    of_folders = [split_of_path(path, folder) for path in files]
    if len(set(of_folders) - {None}) < 2:
        return {"train": files}, None
    splits: dict[str, list[Path]] = {}
    for split, path in zip(of_folders, files, strict=True):
        splits.setdefault(split or "train", []).append(path)
    return splits, "the folders of the XML files"


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


def _listed_files(folder: Path, image_sets: list[Path], problems: list[Problem]) -> list[Path]:
    """Return the annotation files in the lists; lines of a class's list end with 1, -1 or 0."""
    files: dict[Path, None] = {}
    index = FolderIndex({".xml"})
    for image_set in image_sets:
        lost: list[str] = []
        for number, line in enumerate(read_lines(image_set), start=1):
            names = dict.fromkeys((line.strip(), re.sub(r"\s+(-1|0|1)$", "", line.strip())))
            path = next((path for name in names if name and (path := _listed_file(folder, name, index))), None)
            if path:
                files[path] = None
            elif line.strip():
                lost.append(f"{image_set}, line {number}: {line.strip()} has no XML file in {folder / 'Annotations'}")
        if lost:
            message = f"{lost[0]}; {len(lost)} of the images that it lists have none and are left out"
            problems.append(Problem("lost annotation", message, count=len(lost)))
    return list(files)


def _listed_file(folder: Path, name: str, index: FolderIndex) -> Path | None:
    """Return the XML file of an image named in a list, with or without folders and suffix."""
    plain = folder / "Annotations" / f"{name}.xml"
    if os.path.isfile(plain):
        return plain
    return index.get((folder / "Annotations" / name).parent, Path(name).name)


def _read_file(path: Path, image_id: int, images: _Images) -> Record:
    try:
        root = parse_xml(path)
        if root.tag.lower() != "annotation":
            raise ValueError(f"the root must be <annotation>, got <{root.tag}>")
    except XML_ERRORS as error:
        record = Record.with_size(images.find(path, "").absolute(), image_id)
        record.unreadable.append(f"{path}: not valid XML of Pascal VOC ({error})")
        return record
    image = images.find(path, (root.findtext("filename") or "").strip())
    width, height = (parse_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    record = Record.with_size(image.absolute(), image_id, width, height)
    for index, item in enumerate(root.findall("object")):
        _add_object(record, item, f"{path}: object {index}")
    return record


def _add_object(record: Record, item: ElementTree.Element, where: str) -> None:
    """Append an object, once for each of its boxes. Boxes of its parts (head, hand) are left out."""
    name = (item.findtext("name") or "").strip()
    boxes = _boxes(item)
    if not name:
        record.unreadable.append(f"{where}: must have a name")
    if not boxes or None in boxes:
        needs = "a bndbox with the numbers xmin, ymin, xmax, ymax, a robndbox or a polygon"
        record.unreadable.append(f"{where}: must have {needs}")
    flags = Flags(
        difficult=parse_flag(item.findtext("difficult"), "difficult", where, record.unreadable),
        truncated=parse_flag(item.findtext("truncated"), "truncated", where, record.unreadable),
    )
    for box in boxes:
        if name and box:
            record.add(box, name, flags=flags)


def _boxes(item: ElementTree.Element) -> list[list[float] | None]:
    """Return the boxes xywh of an object, None for invalid ones.

    They are those of its corners, else around its rotated box or polygon.
    """
    corners = [_of_corners(box) for box in item.findall("bndbox")]
    return (
        corners
        or [_of_rotated(box) for box in item.findall("robndbox")]
        or [_of_polygon(polygon) for polygon in item.findall("polygon")]
    )


def _of_corners(box: ElementTree.Element) -> list[float] | None:
    values = _numbers(box, "xmin", "ymin", "xmax", "ymax")
    if values is None:
        return None
    x0, y0, x1, y1 = values
    return [x0, y0, x1 - x0, y1 - y0]


def _of_rotated(box: ElementTree.Element) -> list[float] | None:
    """Return the box around the rotated box of labelImg2: center, size, and angle in radians."""
    values = _numbers(box, "cx", "cy", "w", "h", "angle")
    if values is None:
        return None
    cx, cy, w, h, angle = values
    return box_around_rotated([cx - w / 2, cy - h / 2, w, h], math.degrees(angle), (cx, cy))


def _of_polygon(polygon: ElementTree.Element) -> list[float] | None:
    """Return the box around `<x1>, <y1>, <x2> ...` (Roboflow) or `<pt><x>, <y>` (LabelMe's web tool)."""
    points = [_numbers(point, "x", "y") for point in polygon.findall("pt")]
    if not points:
        count = sum(child.tag.startswith("x") for child in polygon)
        points = [_numbers(polygon, f"x{number}", f"y{number}") for number in range(1, count + 1)]
    valid = [point for point in points if point]
    return box_around(valid) if len(valid) == len(points) >= 3 else None


def _numbers(element: ElementTree.Element, *keys: str) -> list[float] | None:
    return parse_numbers([element.findtext(key) for key in keys], len(keys))


class _Images:
    """Finds the images of annotation files, and records those that have another name than stated."""

    def __init__(self, origin: Path, images: Path | None) -> None:
        self.origin = origin
        self._images = images
        self.finder = ImageFinder(folder_of_images(origin), images=images)
        self._substitutes: list[tuple[Path, str, Path]] = []

    def find(self, annotation: Path, stated: str) -> Path:
        """Return the image that the XML file states, else one with that stem or the stem of the XML file.

        If there is none, return the path where it is expected.
        """
        folders = [self._images] if self._images else _image_folders(annotation)
        stated = stated.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
        path = self.finder.find_in((stated, annotation.stem), folders)
        if path is None:
            folder = next(filter(self.finder.has_images, folders), folders[0])
            expected = folder / (stated or f"{annotation.stem}.jpg")
            for name in filter(None, (stated, annotation.stem)):
                path = path or self.finder.locate(name, str(annotation), [])
            if path is None:
                self.finder.note_missing(str(expected))
                return expected
        self.finder.note_found()
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


def _image_folders(annotation: Path) -> Sequence[Path]:
    """Return the usual folders of an XML file's image: near the annotations, or the file's own."""
    root, below = _around_annotations(annotation)
    return [root / "JPEGImages" / below, annotation.parent, root / "images" / below]


def _around_annotations(file: Path) -> tuple[Path, Path]:
    """Return the parent of `Annotations` and the file's subfolder in it, else the file's grandparent."""
    for folder in file.parents:
        if folder.name.lower() == "annotations":
            return folder.parent, file.parent.relative_to(folder)
    return file.parent.parent, Path()
