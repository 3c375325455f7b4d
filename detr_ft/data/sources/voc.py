"""Read Pascal VOC: an XML file for each image, with `ImageSets/Main`, folders of splits, or neither.

Corners are read as written: a box from xmin 10 to xmax 12 is 2 pixels wide. The original VOC counts pixels from 1 and
includes the last one. Most VOC files today (LabelImg, CVAT, Roboflow) have plain corners, and a file does not state
which. For an original VOC file the difference is one pixel.
"""

from __future__ import annotations

import logging
import math
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.listing import files_below, split_of_path
from detr_ft.data.sources.parsing import XML_ERRORS, parse_flag, parse_number, parse_numbers, parse_xml
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.recognition import most_common, xml_root
from detr_ft.data.sources.record import Flags, Record
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_rotated
from detr_ft.data.sources.voc_images import VocImages
from detr_ft.data.sources.voc_sets import SETS, listed_files
from detr_ft.errors import InputError

_SHAPES = ("bndbox", "robndbox", "polygon")

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether most XML files of a folder are Pascal VOC's."""
    return path.is_dir() and most_common(files_below(path, {".xml"}), xml_root) == "annotation"


def read(folder: Path, options: ReadOptions) -> SourceData:
    """Read a VOC folder, or one with several (`VOC2007/`, `VOC2012/`); classes are sorted by name.

    The image of an XML file is the one that it states. If that is missing, it is the one with the XML file's name,
    which is logged. Objects are the elements `<object>`, in any case, with `difficult` and `truncated`.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: must be a folder with an XML file for each image")
    problems: list[Problem] = []
    files, unlisted, split_by = _files(folder, problems)
    if not any(files.values()):
        raise InputError(f"{folder}: no XML files of Pascal VOC, expected Annotations/*.xml and JPEGImages/")
    images = VocImages(folder, options.images)
    splits = {
        split: [_read_file(path, index, images) for index, path in enumerate(paths)] for split, paths in files.items()
    }
    raise_all(images.finder.all_missing(folder))
    images.log_substitutes()
    annotated = list(_add_unlisted(unlisted, images, problems))
    names = sorted(used_names(splits) - {""})
    return to_source_data(splits, names, folder, problems, split_by=split_by, annotated=annotated)


def _files(folder: Path, problems: list[Problem]) -> tuple[dict[str, list[Path]], list[Path], str | None]:
    """Return the XML files of each split, those that no list has, and what decides on the split.

    Listed images without XML files are added to `problems`.
    """
    listed = listed_files(folder, problems)
    if listed is not None:
        unlisted = _unlisted(folder, (path for paths in listed.values() for path in paths))
        return {split: paths for split, paths in listed.items() if paths}, unlisted, f"the lists in {SETS}"
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
        return {"train": files}, [], None
    splits: dict[str, list[Path]] = {}
    for split, path in zip(of_folders, files, strict=True):
        splits.setdefault(split or "train", []).append(path)
    return splits, [], "the folders of the XML files"


def _unlisted(folder: Path, listed: Iterable[Path]) -> list[Path]:
    """Return the XML files of Pascal VOC below a folder that no list has."""
    known = {os.path.realpath(path) for path in listed}
    files = [path for path in files_below(folder, {".xml"}) if os.path.realpath(path) not in known]
    return [path for path in files if (xml_root(path) or "").lower() == "annotation"]


def _add_unlisted(files: Sequence[Path], images: VocImages, problems: list[Problem]) -> Iterator[Path]:
    """Yield the images of XML files that no list has, and add a problem that counts their objects."""
    count = 0
    for path in files:
        try:
            root: ElementTree.Element | None = _parse(path)
        except XML_ERRORS:
            root = None
        count += 1 if root is None else len(_objects(root))
        yield images.find(path, root, []).absolute()
    if files:
        message = (
            f"{files[0]}: {len(files)} XML files are in no list of {SETS} and are left out, this is the first. Add their "
            "names to a list"
        )
        problems.append(Problem("no split", message, count=count))


def _read_file(path: Path, image_id: int, images: VocImages) -> Record:
    problems: list[str] = []
    root: ElementTree.Element | None = None
    try:
        root = _parse(path)
    except XML_ERRORS as error:
        problems.append(f"{path}: not valid XML of Pascal VOC ({error})")
    image = images.find(path, root, problems).absolute()
    width, height = (
        parse_number(root.findtext(f"size/{side}")) if root is not None else None for side in ("width", "height")
    )
    record = Record.with_size(image, image_id, width, height)
    record.unreadable += problems
    for index, item in enumerate(_objects(root)):
        _add_object(record, item, f"{path}: object {index}")
    for child in () if root is None else root:
        count = 0 if _is_object(child) else _num_shapes(child)
        if count:
            record.unreadable.append(
                f"{path}: <{child.tag}> has boxes or polygons ({count}) and is not read. Put each object into an <object> of "
                "<annotation>"
            )
    return record


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an XML file. Raises one of XML_ERRORS, also for another root than <annotation>."""
    root = parse_xml(path)
    if root.tag.lower() != "annotation":
        raise ValueError(f"the root must be <annotation>, got <{root.tag}>")
    return root


def _objects(root: ElementTree.Element | None) -> list[ElementTree.Element]:
    return [] if root is None else list(filter(_is_object, root))


def _is_object(element: ElementTree.Element) -> bool:
    """Return whether an element is an object: `<object>` in any case."""
    return element.tag.lower() == "object"


def _num_shapes(element: ElementTree.Element) -> int:
    """Return the number of boxes and polygons in an element, itself included."""
    return sum(inside.tag.lower() in _SHAPES for inside in element.iter())


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
