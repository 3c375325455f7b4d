"""Reads Pascal VOC: XML files beside the images, with `ImageSets/Main`, one folder for each split, or neither.

Corners are taken as they are written, so a box from xmin 10 to xmax 12 is 2 pixels wide. The original VOC counts pixels
from 1 and includes the last one, but the tools that write most VOC files today (LabelImg, CVAT, Roboflow) write plain
corners, and nothing in a file tells which was meant. For an original VOC file the difference is one pixel.
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
    """Whether a folder has XML files where VOC's are."""
    return path.is_dir() and bool(_files(path, []))


def read(folder: Path, box_format: BoxFormat | None) -> SourceData:
    """The data set of a VOC folder; classes are sorted by name, `difficult` and `truncated` are kept.

    The image is the one that the XML file names; where that isn't there, the one called as the XML file, and it is said.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder that holds Annotations/ and JPEGImages/")
    problems: list[str] = []
    files = _files(folder, problems)
    if not files and not problems:
        raise InputError(f"{folder}: no VOC annotations found; expected Annotations/*.xml and JPEGImages/")
    images = _Images(folder)
    splits = {split: _read_split(paths, images, problems) for split, paths in files.items()}
    raise_all(problems)
    images.tell()
    return SourceData(to_dataset(splits, sorted(used_names(splits)), folder))


def _files(folder: Path, problems: list[str]) -> dict[str, list[Path]]:
    """The XML files of each split below a folder; what the image sets list in vain is added to `problems`."""
    if (folder / _SETS).is_dir():
        chosen = _image_sets(folder / _SETS)
        if chosen:
            return {split: _listed(folder, lists, problems) for split, lists in chosen.items()}
    whole = files_below(folder / "Annotations", {".xml"}) + files_in(folder, {".xml"})
    if whole:
        return {"train": whole}
    parts = {split: files_below(child, {".xml"}) for split, child in split_folders(folder)}
    return {split: paths for split, paths in parts.items() if paths}


def _image_sets(folder: Path) -> dict[str, list[Path]]:
    """The lists of each split: the one named for it, else those of the classes (`dog_train.txt`), which add up to it."""
    lists: dict[str, list[Path]] = {}
    of_classes: dict[str, list[Path]] = {}
    for path in files_in(folder, {".txt"}):
        word = path.stem.lower().rpartition("_")[2]
        if word in _SET_WORDS:
            (lists if word == path.stem.lower() else of_classes).setdefault(word, []).append(path)
    chosen: dict[str, list[Path]] = {}
    for word, paths in (lists or of_classes).items():
        # `trainval` only repeats the others where they are given.
        split = split_of(word)
        if split and not (word == "trainval" and "train" in (lists or of_classes)):
            chosen.setdefault(split, []).extend(paths)
    return chosen


def _listed(folder: Path, image_sets: list[Path], problems: list[str]) -> list[Path]:
    """The annotation files that the lists name, each once; a line of a class's list ends with 1, -1 or 0."""
    found: dict[Path, None] = {}
    for image_set in image_sets:
        for number, line in enumerate(read_lines(image_set), start=1):
            names = dict.fromkeys((line.strip(), re.sub(r"\s+(-1|0|1)$", "", line.strip())))
            paths = [folder / "Annotations" / f"{name}.xml" for name in names if name]
            path = next((path for path in paths if os.path.isfile(path)), None)
            if path:
                found[path] = None
            elif paths:
                problems.append(f"{image_set}, line {number}: there is no annotation file {paths[-1]}")
    return list(found)


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
        raise ValueError(f"expected <annotation> as its outermost element, got <{root.tag}>")
    image = images.find(path, (root.findtext("filename") or "").strip())
    width, height = (parse_number(root.findtext(f"size/{side}")) for side in ("width", "height"))
    record = Record.sized(image.absolute(), image_id, width, height)
    for index, item in enumerate(root.findall("object")):
        _add_object(record, item, f"{path}: object {index}", problems)
    return record


def _add_object(record: Record, item: ElementTree.Element, where: str, problems: list[str]) -> None:
    """Append an object, or several where it has several boxes; those of its parts (head, hand) are not among them."""
    name = (item.findtext("name") or "").strip()
    corners = [
        parse_numbers([box.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")], 4)
        for box in item.findall("bndbox")
    ]
    if not name:
        problems.append(f"{where} has no name")
    if not corners or None in corners:
        problems.append(f"{where} needs a bndbox with the numbers xmin, ymin, xmax, ymax")
    difficult, truncated = (parse_flag(item.findtext(key), key, where, problems) for key in ("difficult", "truncated"))
    flags = Flags(difficult=difficult, truncated=truncated)
    for x0, y0, x1, y1 in (values for values in corners if name and values):
        record.add([x0, y0, x1 - x0, y1 - y0], name, flags=flags)


class _Images:
    """Finds the images of annotation files, and keeps which aren't called as their file says."""

    def __init__(self, origin: Path) -> None:
        self.origin = origin
        self._finder = ImageFinder(origin)
        self._others: list[tuple[Path, str, Path]] = []

    def find(self, annotation: Path, stated: str) -> Path:
        """The image that the XML file states, else one whose name is that or the XML file's but for its ending.

        Where there is none, the path at which it should be.
        """
        root, below = _around_annotations(annotation)
        folders = [root / "JPEGImages" / below, annotation.parent, root / "images" / below]
        stated = stated.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
        path = self._finder.among((stated, Path(stated).stem, annotation.stem), folders)
        if path is None:
            home = next(filter(self._finder.holds_images, folders), folders[0])
            return home / (stated or f"{annotation.stem}.jpg")
        if stated not in ("", path.name, path.stem):
            self._others.append((annotation, stated, path))
        return path

    def tell(self) -> None:
        """Say on the log of how many files another image than the one they name was taken."""
        if self._others:
            annotation, stated, path = self._others[0]
            log.warning(
                "%s: %d XML files name an image that isn't there, and the one whose name is most alike is taken: "
                "%s names %s, taken is %s; correct <filename> where that is wrong",
                self.origin, len(self._others), annotation, stated, path,
            )  # fmt: skip


def _around_annotations(file: Path) -> tuple[Path, Path]:
    """The folder that holds `Annotations`, and where below that one the file lies; else the file's grandparent."""
    for above in file.parents:
        if above.name.lower() == "annotations":
            return above.parent, file.parent.relative_to(above)
    return file.parent.parent, Path()
