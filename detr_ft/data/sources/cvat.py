"""Read CVAT's own XML, "CVAT for images 1.1": one file with the shapes of all images."""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

from detr_ft.data.box_format import BoxFormat
from detr_ft.data.sources.base import SourceData
from detr_ft.data.sources.errors import raise_all
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.listing import split_of_folder
from detr_ft.data.sources.parsing import XML_ERRORS, parse_number, parse_numbers, parse_xml
from detr_ft.data.sources.record import Record, to_dataset, used_names
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_rotated
from detr_ft.errors import InputError

_NO_SUBSET = ("", "default")

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a path is an XML file, or a folder with `annotations.xml`."""
    return path.suffix.lower() == ".xml" if path.is_file() else (path / "annotations.xml").is_file()


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """Read a CVAT file, or the `annotations.xml` of a folder; classes are sorted by name.

    Boxes (of rotated ones the box around them) and polygons become objects; other shapes are left out. Subsets that are
    named after a split are that split, and images without a subset are train.
    """
    file = path / "annotations.xml" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no annotations.xml. Export the task as 'CVAT for images 1.1'")
    try:
        root = parse_xml(file)
    except XML_ERRORS as error:
        raise InputError(f"{file}: not valid XML ({error})") from error
    _check_root(root, file)
    reader = _Reader(file)
    splits = reader.read(root)
    raise_all([*reader.problems, *reader.finder.all_missing(file)])
    reader.log_left_out()
    return SourceData(to_dataset(splits, sorted(used_names(splits)), file))


def _check_root(root: ElementTree.Element, file: Path) -> None:
    if root.tag == "annotation":
        raise InputError(f"{file}: this is the Pascal VOC file of one image. Name the folder of all, as voc:FOLDER")
    if root.tag != "annotations":
        raise InputError(f"{file}: not a CVAT file, the root must be <annotations>, got <{root.tag}>")
    if root.find("track") is not None:
        raise InputError(f"{file}: has tracks of a video. Export the task as 'CVAT for images 1.1' instead")


class _Reader:
    """Converts the images of a file to records; counts problems and elements that are left out."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.finder = ImageFinder(file.parent)
        self.problems: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.other_subsets: Counter[str] = Counter()

    def read(self, root: ElementTree.Element) -> dict[str, list[Record]]:
        """Return the records of each split, with the file's image ids if these are unique, else with indices."""
        splits: dict[str, list[Record]] = {}
        images = root.findall("image")
        ids = _image_ids(images)
        for index, image in enumerate(images):
            subset = (image.get("subset") or "").strip()
            split = "train" if subset.lower() in _NO_SUBSET else split_of_folder(Path(subset))
            if split is None:
                self.other_subsets[subset] += 1
                continue
            records = splits.setdefault(split, [])
            record = self._record(image, subset, ids[index] if ids else len(records))
            if record:
                records.append(record)
        return splits

    def log_left_out(self) -> None:
        """Log the numbers of elements and images that are left out."""
        for tag, count in sorted(self.left_out.items()):
            log.warning("%s: %d elements <%s> are neither boxes nor polygons and are left out", self.file, count, tag)
        for subset, count in sorted(self.other_subsets.items()):
            message = "%s: %d images of the subset %r are left out: it is not train, validation or test"
            log.warning(message, self.file, count, subset)

    def _record(self, image: ElementTree.Element, subset: str, image_id: int) -> Record | None:
        name = (image.get("name") or "").strip()
        where = f"{self.file}: image {image.get('id')}"
        if not name:
            self.problems.append(f"{where} must have a name")
            return None
        # Subsets have folders of their own, which may contain equal names.
        inside = self.file.parent / "images" / subset / name
        path = self.finder.find(str(inside) if os.path.isfile(inside) else name, where, self.problems)
        record = Record.with_size(path, image_id, parse_number(image.get("width")), parse_number(image.get("height")))
        for index, shape in enumerate(image):
            self._add(record, shape, f"{where} ({name}), shape {index}")
        return record

    def _add(self, record: Record, shape: ElementTree.Element, where: str) -> None:
        if shape.tag not in ("box", "polygon"):
            self.left_out[shape.tag] += 1
            return
        label = (shape.get("label") or "").strip()
        box = _box(shape) if shape.tag == "box" else _around_polygon(shape)
        if not label:
            self.problems.append(f"{where}: the {shape.tag} must have a label")
        if box is None:
            needs = "the numbers xtl, ytl, xbr, ybr" if shape.tag == "box" else "points, as x,y;x,y;x,y"
            self.problems.append(f"{where}: the {shape.tag} must have {needs}")
        if label and box:
            record.add(box, label)


def _image_ids(images: list[ElementTree.Element]) -> list[int]:
    """Return the images' ids; empty if an id is missing or occurs twice, as in joined files."""
    texts = [(image.get("id") or "").strip() for image in images]
    ids = [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 19]
    return ids if len(set(ids)) == len(images) else []


def _box(shape: ElementTree.Element) -> list[float] | None:
    corners = parse_numbers([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr")], 4)
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    center = ((x0 + x1) / 2, (y0 + y1) / 2)
    return box_around_rotated([x0, y0, x1 - x0, y1 - y0], parse_number(shape.get("rotation")) or 0, center)


def _around_polygon(shape: ElementTree.Element) -> list[float] | None:
    points = [parse_numbers(pair.split(","), 2) for pair in (shape.get("points") or "").split(";")]
    valid = [point for point in points if point]
    return box_around(valid) if len(valid) == len(points) >= 3 else None
