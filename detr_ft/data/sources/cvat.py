"""Read CVAT's own XML, "CVAT for images 1.1": one file with the shapes of all images."""

from __future__ import annotations

import logging
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.conversion import to_source_data, used_names
from detr_ft.data.sources.image_finder import ImageFinder
from detr_ft.data.sources.listing import file_by_split, files_in, split_folders, split_of, split_of_folder
from detr_ft.data.sources.parsing import XML_ERRORS, parse_number, parse_numbers, parse_rotation, parse_xml, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.recognition import xml_root
from detr_ft.data.sources.record import Record
from detr_ft.data.sources.shapes_to_boxes import box_around, box_around_ellipse, box_around_rotated, box_around_runs
from detr_ft.errors import InputError

_NO_SUBSET = ("", "default")
_WITHOUT_AREA = ("points", "polyline")
_ATTRIBUTES_OF_IMAGES = ("tag", "attribute")

log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a path is an XML file, or a folder with one of CVAT."""
    return path.suffix.lower() == ".xml" if path.is_file() else bool(_files_in(path))


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a CVAT file, or those of a folder; classes are sorted by name.

    Every shape with an area is an object with the box around it; points and lines are left out. Subsets that are named
    after a split are that split. Images without a subset are in the split that their file is named after, else train.
    """
    files = {"train": path} if path.is_file() else file_by_split(_files_in(path), path, "cvat")
    if not files:
        raise InputError(f"{path}: no annotations.xml. Export the task as 'CVAT for images 1.1'")
    splits: dict[str, list[Record]] = {}
    problems: list[Problem] = []
    annotated: set[Path] = set()
    has_subsets = False
    for split, file in files.items():
        root = _root(file)
        reader = _Reader(file, options.images, split)
        for name, records in reader.read(root).items():
            splits.setdefault(name, []).extend(records)
        raise_all(reader.finder.all_missing(file))
        reader.finder.log_substitutes(file)
        reader.add_other_subsets()
        problems += reader.problems
        annotated |= reader.annotated
        has_subsets = has_subsets or any(image.get("subset") for image in root.findall("image"))
    if len(files) > 1:
        for records in splits.values():
            for index, record in enumerate(records):
                record.image_id = index
    names = sorted(used_names(splits) - {""})
    split_by = (
        "the subsets" if has_subsets else "the names of the files and folders" if list(files) != ["train"] else None
    )
    return to_source_data(splits, names, path, problems, split_by=split_by, annotated=annotated)


def _files_in(folder: Path) -> list[tuple[str | None, Path]]:
    """Return the files of CVAT in a folder and its folders of splits, with split words.

    The only file has none.
    """
    folders: list[tuple[str | None, Path]] = [(None, folder), *split_folders(folder)]
    files = ((split or split_of(file.stem), file) for split, parent in folders for file in files_in(parent, {".xml"}))
    pairs = [(split, file) for split, file in files if xml_root(file) == "annotations"]
    return pairs if len(pairs) > 1 else [(None, file) for _, file in pairs]


def _root(file: Path) -> ElementTree.Element:
    try:
        root = parse_xml(file)
    except XML_ERRORS as error:
        raise InputError(f"{file}: not valid XML ({error})") from error
    _check_root(root, file)
    return root


def _check_root(root: ElementTree.Element, file: Path) -> None:
    if root.tag == "annotation":
        raise InputError(f"{file}: this is the Pascal VOC file of one image. Name the folder of all, as voc:FOLDER")
    if root.tag != "annotations":
        raise InputError(f"{file}: not a CVAT file, the root must be <annotations>, got <{root.tag}>")
    if root.find("track") is not None:
        raise InputError(f"{file}: has tracks of a video. Export the task as 'CVAT for images 1.1' instead")


class _Reader:
    """Converts the images of a file to records; collects problems of no record and other subsets.

    `split` is that of images without a subset.
    """

    def __init__(self, file: Path, images: Path | None, split: str) -> None:
        self.file = file
        self.split = split
        self.finder = ImageFinder(file.parent, images=images)
        self.problems: list[Problem] = []
        self.other_subsets: dict[str, list[int]] = {}  # the number of objects of each image
        self.annotated: set[Path] = set()  # the images of these subsets

    def read(self, root: ElementTree.Element) -> dict[str, list[Record]]:
        """Return the records of each split, with the file's image ids if these are unique, else with indices."""
        splits: dict[str, list[Record]] = {}
        images = root.findall("image")
        ids = _image_ids(images)
        for index, image in enumerate(images):
            subset = (image.get("subset") or "").strip()
            split = self.split if subset.lower() in _NO_SUBSET else split_of_folder(Path(subset))
            if split is None:
                self._leave_out(image, subset)
                continue
            records = splits.setdefault(split, [])
            record = self._record(image, subset, ids[index] if ids else len(records))
            if record:
                records.append(record)
        return splits

    def add_other_subsets(self) -> None:
        """Add problems of the subsets that are no splits."""
        for subset, objects in sorted(self.other_subsets.items()):
            message = (
                f"{self.file}: {len(objects)} images of the subset {shown(subset)} are left out: it is not train, validation "
                "or test"
            )
            self.problems.append(Problem("no split", message, count=sum(objects)))

    def _leave_out(self, image: ElementTree.Element, subset: str) -> None:
        """Count the objects of an image in a subset that is no split."""
        count = sum(shape.tag not in _ATTRIBUTES_OF_IMAGES for shape in image)
        self.other_subsets.setdefault(subset, []).append(count)
        name = (image.get("name") or "").strip()
        path = self.finder.locate(self._path(name, subset), str(self.file), [])
        if path:
            self.annotated.add(path.absolute())

    def _path(self, name: str, subset: str) -> str:
        """Return the path of an image in its subset's folder, which may repeat names, else its name."""
        inside = self.file.parent / "images" / subset / name
        return str(inside) if os.path.isfile(inside) else name

    def _record(self, image: ElementTree.Element, subset: str, image_id: int) -> Record | None:
        name = (image.get("name") or "").strip()
        where = f"{self.file}: image {image.get('id')}"
        if not name:
            self.problems.append(Problem("lost annotation", f"{where}: must have a name", count=len(image)))
            return None
        problems: list[str] = []
        path = self.finder.find(self._path(name, subset), where, problems)
        record = Record.with_size(path, image_id, parse_number(image.get("width")), parse_number(image.get("height")))
        record.doubts += problems
        record.stated = name
        for index, shape in enumerate(image):
            if shape.tag not in _ATTRIBUTES_OF_IMAGES:
                _add(record, shape, f"{where} ({name}), shape {index}")
        return record


def _add(record: Record, shape: ElementTree.Element, where: str) -> None:
    label = (shape.get("label") or "").strip()
    if shape.tag in _WITHOUT_AREA:
        record.without_area.append(f"{where}: a {shape.tag} has no area")
        return
    if shape.tag not in _BOXES:
        record.unreadable.append(f"{where}: the shape <{shape.tag}> is unknown, must be one of {', '.join(_BOXES)}")
        return
    box_of, needs = _BOXES[shape.tag]
    box = box_of(shape)
    if not label:
        record.unreadable.append(f"{where}: the {shape.tag} must have a label")
    if box is None:
        record.unreadable.append(f"{where}: the {shape.tag} must have {needs}")
    if label and box:
        record.add(box, label)


def _image_ids(images: list[ElementTree.Element]) -> list[int]:
    """Return the images' ids; empty if an id is missing or occurs twice, as in joined files."""
    texts = [(image.get("id") or "").strip() for image in images]
    ids = [int(text) for text in texts if text.isascii() and text.isdigit() and len(text) < 19]
    return ids if len(set(ids)) == len(images) else []


def _numbers(shape: ElementTree.Element, *keys: str) -> list[float] | None:
    return parse_numbers([shape.get(key) for key in keys], len(keys))


def _of_box(shape: ElementTree.Element) -> list[float] | None:
    corners = _numbers(shape, "xtl", "ytl", "xbr", "ybr")
    if corners is None:
        return None
    x0, y0, x1, y1 = corners
    degrees = parse_rotation(shape.get("rotation"))
    if degrees is None:
        return None
    return box_around_rotated([x0, y0, x1 - x0, y1 - y0], degrees, ((x0 + x1) / 2, (y0 + y1) / 2))


def _of_polygon(shape: ElementTree.Element) -> list[float] | None:
    points = _points(shape)
    return box_around(points) if points and len(points) >= 3 else None


def _points(shape: ElementTree.Element) -> list[list[float]] | None:
    pairs = [parse_numbers(pair.split(","), 2) for pair in (shape.get("points") or "").split(";")]
    points = [pair for pair in pairs if pair]
    return points if len(points) == len(pairs) else None


def _of_ellipse(shape: ElementTree.Element) -> list[float] | None:
    numbers, degrees = _numbers(shape, "cx", "cy", "rx", "ry"), parse_rotation(shape.get("rotation"))
    if numbers is None or degrees is None:
        return None
    cx, cy, rx, ry = numbers
    return box_around_ellipse(cx, cy, rx, ry, degrees)


def _of_mask(shape: ElementTree.Element) -> list[float] | None:
    """Return the box around the pixels of a mask: runs of zeros and ones, row by row, in a window."""
    window = _numbers(shape, "left", "top", "width", "height")
    texts = (shape.get("rle") or "").split(",")
    runs = parse_numbers(texts, len(texts))
    return None if window is None or runs is None else box_around_runs(runs, window)


def _of_cuboid(shape: ElementTree.Element) -> list[float] | None:
    """Return the box around the eight corners of a cuboid: left and right edges of its front and back."""
    corners = ("tl1", "bl1", "tr1", "br1", "tl2", "bl2", "tr2", "br2")
    points = [_numbers(shape, f"x{corner}", f"y{corner}") for corner in corners]
    valid = [point for point in points if point]
    return box_around(valid) if len(valid) == len(corners) else None


def _of_skeleton(shape: ElementTree.Element) -> list[float] | None:
    """Return the box around the points of a skeleton that are not outside of the image."""
    inside = [point for point in shape.findall("points") if point.get("outside") != "1"]
    points = [_points(point) for point in inside]
    valid = [pair for pairs in points if pairs for pair in pairs]
    return box_around(valid) if valid and None not in points else None


_BOXES: Mapping[str, tuple[Callable[[ElementTree.Element], list[float] | None], str]] = {
    "box": (_of_box, "the numbers xtl, ytl, xbr, ybr, and a rotation in degrees or none"),
    "polygon": (_of_polygon, "points, as x,y;x,y;x,y"),
    "ellipse": (_of_ellipse, "the numbers cx, cy, rx, ry, and a rotation in degrees or none"),
    "mask": (_of_mask, "rle, left, top, width and height, with at least one pixel"),
    "cuboid": (_of_cuboid, "the corners xtl1, ytl1, ... xbr2, ybr2"),
    "skeleton": (_of_skeleton, "points inside of the image"),
}
