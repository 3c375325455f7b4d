"""Reads Pascal VOC: XML files beside the images, with `ImageSets/Main`, one folder for each split, or neither.

Corners are taken as they are written, so a box from xmin 10 to xmax 12 is 2 pixels wide. The original VOC counts pixels
from 1 and includes the last one, but the tools that write most VOC files today (LabelImg, CVAT, Roboflow) write plain
corners, and nothing in a file tells which was meant. For an original VOC file the difference is one pixel.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.sources.records import (
    IMAGE_SUFFIXES,
    Flags,
    Record,
    measured_size,
    numbers,
    raise_all,
    read_text,
    split_folders,
    split_of,
    stated_side,
    to_dataset,
)
from detr_ft.errors import UserError

_SETS = Path("ImageSets", "Main")


def read_voc(folder: Path) -> DatasetDict:
    """The data set of a VOC folder; classes are sorted by name, `difficult` and `truncated` are kept."""
    if not folder.is_dir():
        raise UserError(f"{folder}: expected the folder that holds Annotations/ and JPEGImages/")
    problems: list[str] = []
    files = voc_files(folder, problems)
    if not files and not problems:
        raise UserError(f"{folder}: no VOC annotations found; expected Annotations/*.xml and JPEGImages/")
    splits = {split: _read_split(paths, problems) for split, paths in files.items()}
    raise_all(problems)
    names = sorted({name for records in splits.values() for record in records for name in record.names})
    return to_dataset(splits, names, folder)


def voc_files(folder: Path, problems: list[str]) -> dict[str, list[Path]]:
    """The XML files of each split below a folder; what the image sets list in vain is added to `problems`."""
    if (folder / _SETS).is_dir():
        lists = {path.stem: path for path in sorted((folder / _SETS).glob("*.txt"))}
        # Besides the splits there is a file for each class and `trainval`, which only repeats others.
        chosen = {split: lists[word] for word, split in _set_words(lists) if word in lists}
        if chosen:
            return {split: list(_listed(folder, path, problems)) for split, path in chosen.items()}
    whole = [path for place in (folder / "Annotations", folder) for path in sorted(place.glob("*.xml"))]
    if whole:
        return {"train": whole}
    parts = {split: sorted(child.rglob("*.xml")) for split, child in split_folders(folder)}
    return {split: paths for split, paths in parts.items() if paths}


def _set_words(lists: dict[str, Path]) -> Iterator[tuple[str, str]]:
    for word in lists:
        split = split_of(word) if word in ("train", "trainval", "val", "valid", "validation", "test") else None
        if split and not (word == "trainval" and "train" in lists):
            yield word, split


def _listed(folder: Path, image_set: Path, problems: list[str]) -> Iterator[Path]:
    for number, line in enumerate(read_text(image_set).splitlines(), start=1):
        if not line.strip():
            continue
        path = folder / "Annotations" / f"{line.strip()}.xml"
        if path.is_file():
            yield path
        else:
            problems.append(f"{image_set}, line {number}: there is no annotation file {path}")


def _read_split(paths: list[Path], problems: list[str]) -> list[Record]:
    images = _Images()
    records = []
    for image_id, path in enumerate(paths):
        try:
            records.append(_read_file(path, image_id, images, problems))
        except (ElementTree.ParseError, ValueError, LookupError) as error:
            problems.append(f"{path}: not valid XML ({error})")
    return records


def _read_file(path: Path, image_id: int, images: _Images, problems: list[str]) -> Record:
    root = ElementTree.fromstring(path.read_bytes(), ElementTree.XMLParser(target=_WithoutDoctype()))
    image = images.find(path, (root.findtext("filename") or "").strip())
    stated = (stated_side(_number(root.findtext(f"size/{side}"))) for side in ("width", "height"))
    width, height = stated
    if width is None or height is None:
        width, height = measured_size(image)
    record = Record(image.absolute(), image_id, width, height)
    for index, item in enumerate(root.iter("object")):
        name = (item.findtext("name") or "").strip()
        corners = numbers([item.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")], 4)
        if not name:
            problems.append(f"{path}: object {index} has no name")
        if corners is None:
            problems.append(f"{path}: object {index} needs a bndbox with the numbers xmin, ymin, xmax, ymax")
        elif name:
            x0, y0, x1, y1 = corners
            flags = Flags(difficult=_says_yes(item, "difficult"), truncated=_says_yes(item, "truncated"))
            record.add([x0, y0, x1 - x0, y1 - y0], name, number=index, flags=flags)
    return record


def _says_yes(item: ElementTree.Element, key: str) -> bool:
    return (item.findtext(key) or "").strip().lower() in ("1", "true", "yes")


def _number(text: str | None) -> float | None:
    values = numbers([text], 1)
    return values[0] if values else None


class _WithoutDoctype(ElementTree.TreeBuilder):
    """Refuses a document type declaration, where entities that grow without bound or name other files are declared."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called by the parser before any entity is declared."""
        raise ValueError("a DOCTYPE is not allowed here")


class _Images:
    """Finds the image of an annotation file, listing each folder once."""

    def __init__(self) -> None:
        self._folders: dict[Path, dict[str, Path]] = {}

    def find(self, annotation: Path, stated: str) -> Path:
        """The image named as the XML file, or as the XML says; where neither exists, the path at which it should be."""
        places = [annotation.parent.parent / "JPEGImages", annotation.parent, annotation.parent.parent / "images"]
        stated = stated.replace("\\", "/").rsplit("/", maxsplit=1)[-1]
        for key in (annotation.stem, Path(stated).stem):
            for place in places:
                if key in self._in(place):
                    return self._in(place)[key]
        home = next((place for place in places if self._in(place)), places[0])
        return home / (stated or f"{annotation.stem}.jpg")

    def _in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._folders:
            files = sorted(folder.iterdir()) if folder.is_dir() else []
            self._folders[folder] = {path.stem: path for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
        return self._folders[folder]
