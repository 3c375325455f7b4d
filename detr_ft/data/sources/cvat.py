"""Reads CVAT's own XML, "CVAT for images 1.1": one file with the shapes of all images."""

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
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_turned
from detr_ft.errors import InputError

_NO_SUBSET = ("", "default")

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Whether a path is an XML file, or a folder with `annotations.xml`."""
    return path.suffix.lower() == ".xml" if path.is_file() else (path / "annotations.xml").is_file()


def read(path: Path, box_format: BoxFormat | None) -> SourceData:
    """The data set of a CVAT file, or of the folder that holds `annotations.xml`; classes are sorted by name.

    Boxes (turned ones get the box around them) and polygons become objects; other shapes are left out. Subsets named as
    splits are those splits, and images without a subset are train.
    """
    file = path / "annotations.xml" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{path}: no annotations.xml found; export the task as 'CVAT for images 1.1'")
    try:
        root = parse_xml(file)
    except XML_ERRORS as error:
        raise InputError(f"{file}: not valid XML ({error})") from error
    _check_kind(root, file)
    reader = _Reader(file)
    splits = reader.read(root)
    raise_all([*reader.problems, *reader.finder.nothing_found(file)])
    reader.tell()
    return SourceData(to_dataset(splits, sorted(used_names(splits)), file))


def _check_kind(root: ElementTree.Element, file: Path) -> None:
    if root.tag == "annotation":
        raise InputError(f"{file}: this is the Pascal VOC file of one image; name the folder of all, as voc:FOLDER")
    if root.tag != "annotations":
        raise InputError(f"{file}: not a CVAT file: expected <annotations> as its outermost element, got <{root.tag}>")
    if root.find("track") is not None:
        raise InputError(f"{file}: holds tracks of a video; export the task as 'CVAT for images 1.1' instead")


class _Reader:
    """Turns the images of a file into records, and keeps what is wrong and what is left out."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.finder = ImageFinder(file.parent)
        self.problems: list[str] = []
        self.left_out: Counter[str] = Counter()
        self.other_subsets: Counter[str] = Counter()

    def read(self, root: ElementTree.Element) -> dict[str, list[Record]]:
        """The records of each split; where the file doesn't number its images, each once, they are numbered by place."""
        splits: dict[str, list[Record]] = {}
        images = root.findall("image")
        own = _own_ids(images)
        for place, image in enumerate(images):
            subset = (image.get("subset") or "").strip()
            split = "train" if subset.lower() in _NO_SUBSET else split_of_folder(Path(subset))
            if split is None:
                self.other_subsets[subset] += 1
                continue
            records = splits.setdefault(split, [])
            record = self._record(image, subset, own[place] if own else len(records))
            if record:
                records.append(record)
        return splits

    def tell(self) -> None:
        """Say on the log what was left out, with numbers."""
        for tag, count in sorted(self.left_out.items()):
            log.warning("%s: %d elements <%s> are neither boxes nor polygons and are left out", self.file, count, tag)
        for subset, count in sorted(self.other_subsets.items()):
            message = "%s: %d images of the subset %r are left out: it is none of train, validation and test"
            log.warning(message, self.file, count, subset)

    def _record(self, image: ElementTree.Element, subset: str, image_id: int) -> Record | None:
        name = (image.get("name") or "").strip()
        where = f"{self.file}: image {image.get('id')}"
        if not name:
            self.problems.append(f"{where} has no name")
            return None
        # A subset has a folder of its own, where names may be the same as in others.
        inside = self.file.parent / "images" / subset / name
        path = self.finder.find(str(inside) if os.path.isfile(inside) else name, where, self.problems)
        record = Record.sized(path, image_id, parse_number(image.get("width")), parse_number(image.get("height")))
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
            self.problems.append(f"{where}: the {shape.tag} has no label")
        if box is None:
            needs = "the numbers xtl, ytl, xbr, ybr" if shape.tag == "box" else "points, as x,y;x,y;x,y"
            self.problems.append(f"{where}: the {shape.tag} needs {needs}")
        if label and box:
            record.add(box, label)


def _own_ids(images: list[ElementTree.Element]) -> list[int]:
    """The images' ids as the file gives them; none where one is missing, or given twice, as in joined files."""
    stated = [(image.get("id") or "").strip() for image in images]
    ids = [int(one) for one in stated if one.isascii() and one.isdigit() and len(one) < 19]
    return ids if len(set(ids)) == len(images) else []


def _box(shape: ElementTree.Element) -> list[float] | None:
    corners = parse_numbers([shape.get(key) for key in ("xtl", "ytl", "xbr", "ybr")], 4)
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    centre = ((x0 + x1) / 2, (y0 + y1) / 2)
    return box_around_turned([x0, y0, x1 - x0, y1 - y0], parse_number(shape.get("rotation")) or 0, centre)


def _around_polygon(shape: ElementTree.Element) -> list[float] | None:
    points = [parse_numbers(pair.split(","), 2) for pair in (shape.get("points") or "").split(";")]
    whole = [point for point in points if point]
    return box_around(whole) if len(whole) == len(points) >= 3 else None
