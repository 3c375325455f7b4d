"""Read COCO JSON: one file, a folder for each split (Roboflow), or `annotations/instances_*.json`.

Also its relatives: LVIS (images by URL), panoptic files (segments of each image), image ids that are text, and CVAT's
export with rotated boxes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.sources.base import ReadOptions, SourceData
from detr_ft.data.sources.coco_rows import ImageId, Row, box_of, file_name_of, parse_id, parse_whole
from detr_ft.data.sources.conversion import to_source_data
from detr_ft.data.sources.image_finder import ImageFinder, fullest_folder, image_root
from detr_ft.data.sources.json_files import json_by_split, json_instead, json_tool_of
from detr_ft.data.sources.listing import split_folders, split_of
from detr_ft.data.sources.parsing import parse_flag, parse_json, parse_numbers, read_text, shown
from detr_ft.data.sources.problems import Problem, raise_all
from detr_ft.data.sources.record import Flags, Record
from detr_ft.errors import InputError

_LISTS = {"images": "", "annotations": ", which is empty if no image has objects", "categories": ""}
_FLAGS = ("iscrowd", "difficult", "truncated")


log = logging.getLogger(__name__)


def recognizes(path: Path) -> bool:
    """Return whether a file, or most JSON files of a folder, are COCO JSON."""
    return json_tool_of(path) == "coco"


def read(path: Path, options: ReadOptions) -> SourceData:
    """Read a COCO file or folder. Categories that no split uses are left out and logged.

    Category ids may have gaps; classes are in the order of the ids, the same for all splits. An object without a bbox
    gets the box around its segmentation. Images that are not at their stated paths are searched for below the file.
    """
    paths = {"train": path} if path.is_file() else json_by_split(path)
    if not paths:
        raise InputError(
            f"{path}: no COCO file, expected <split>/_annotations.coco.json or annotations/instances_<split>.json."
            f"{json_instead(path)} Name the file, as in coco:FILE"
        )
    files = {split: CocoFile(file, options.images) for split, file in paths.items()}
    raise_all([problem for file in files.values() for problem in file.read()])
    splits = {split: file.records for split, file in files.items()}
    return to_source_data(
        splits,
        _used_names(files.values(), path),
        path,
        [problem for file in files.values() for problem in file.problems],
        category_ids=_categories(files.values()),
        split_by=None if list(paths) == ["train"] else "the names of the files and folders",
    )


def read_categories(path: Path) -> dict[int, str]:
    """Return the category names of a valid COCO file or folder by their ids."""
    paths = [path] if path.is_file() else json_by_split(path).values()
    files = [CocoFile(file) for file in paths]
    for file in files:
        file.read_categories()
    return _categories(files)


def _categories(files: Iterable[CocoFile]) -> dict[int, str]:
    return {number: name for file in files for number, name in file.categories.items()}


def _used_names(files: Iterable[CocoFile], path: Path) -> list[str]:
    files = list(files)
    names = dict.fromkeys(name for file in files for _, name in sorted(file.categories.items()))
    used = {name for file in files for record in file.records for name in record.names if name}
    unused = [name for name in names if name not in used]
    if not used:
        return list(names)
    if unused:
        log.info("%s: unused categories are left out: %s", path, ", ".join(unused))
    return [name for name in names if name in used]


# Unknown images for each image without annotations from which on these are suspected to be the same.
_MIN_UNKNOWN_RATIO = 2


@dataclass
class CocoFile:
    """A COCO file: its categories (name by id), records, and problems that belong to no record."""

    file: Path
    images: Path | None = None
    categories: dict[int, str] = field(default_factory=dict)
    records: list[Record] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    _by_id: dict[ImageId, list[Record]] = field(default_factory=dict)
    _stuff: set[int] = field(default_factory=set)
    _num_stuff: int = 0
    _is_panoptic: bool = False
    _unknown_images: set[str] = field(default_factory=set)

    def read(self) -> list[str]:
        """Fill categories and records. Return why the file is no COCO file, empty if it is one."""
        content, reasons = self._content()
        if content is None:
            return reasons
        reasons = [
            f"{self.file}: not a COCO file, {key!r} must be a list{more}"
            for key, more in _LISTS.items()
            if not isinstance(content.get(key), list)
        ]
        if reasons:
            return reasons
        self._add_categories(content)
        self._log_shared_names()
        reasons = self._add_images(self._rows(content, "images"))
        seen_ids: set[object] = set()
        for row in self._annotations(content):
            self._add_annotation(row, seen_ids)
        self._refuse_images_of_unknown_annotations()
        if self._num_stuff:
            log.info("%s: %d segments of stuff, which has no instances, are left out", self.file, self._num_stuff)
        return reasons

    def _refuse_images_of_unknown_annotations(self) -> None:
        """Add a problem to each image without objects if annotations name about as many unknown images.

        Their ids are then likely wrong, and the images would be learned as if nothing were there.
        """
        empty = [record for record in self.records if not (record.names or record.unreadable or record.without_area)]
        if len(self._unknown_images) * _MIN_UNKNOWN_RATIO < len(empty):
            return
        for record in empty if self._unknown_images else []:
            record.doubts.append(
                f"{self.file}: {record.path.name} has no annotations, while {len(self._unknown_images)} images that are not in "
                "the file have some, which may be its own. Correct their image_id, or remove them"
            )

    def read_categories(self) -> None:
        """Fill the categories alone."""
        content, _ = self._content()
        if content is not None:
            self._add_categories(content)

    def _content(self) -> tuple[Row | None, list[str]]:
        try:
            content = parse_json(read_text(self.file))
        except ValueError as error:
            return None, [f"{self.file}: {error}"]
        if not isinstance(content, dict):
            return None, [f"{self.file}: not a COCO file, must be a mapping with images, annotations and categories"]
        return content, []

    def _rows(self, content: Row, key: str) -> Iterator[Row]:
        rows = content.get(key)
        for index, row in enumerate(rows if isinstance(rows, list) else []):
            if isinstance(row, dict):
                yield row
            else:
                self._lost(f"{self.file}: {key}[{index}]: must be a mapping, got {shown(row)}")

    def _annotations(self, content: Row) -> Iterator[Row]:
        """Yield the annotations, and the segments of panoptic ones as annotations."""
        for row in self._rows(content, "annotations"):
            segments = row.get("segments_info")
            if not isinstance(segments, list):
                yield row
                continue
            self._is_panoptic = True  # the ids of segments are unique in their image alone
            for segment in segments:
                yield {**(segment if isinstance(segment, dict) else {}), "image_id": row.get("image_id")}

    def _lost(self, message: str) -> None:
        self.problems.append(Problem("lost annotation", message))

    def _add_categories(self, content: Row) -> None:
        for row in self._rows(content, "categories"):
            number, name = parse_whole(row.get("id")), row.get("name")
            name = str(name).strip() if isinstance(name, (str, int, float)) and not isinstance(name, bool) else ""
            where = f"{self.file}: category {shown(row.get('id'))}"
            if number is None or not name:
                self._lost(f"{where}: must have a whole number as id and a name")
            elif self.categories.get(number, name) != name:
                self._lost(
                    f"{where}: has two names, {shown(self.categories[number])} and {shown(name)}. The first is used"
                )
            else:
                self.categories[number] = name
                if row.get("isthing") == 0:
                    self._stuff.add(number)

    def _log_shared_names(self) -> None:
        ids: dict[str, list[int]] = {}
        for number, name in sorted(self.categories.items()):
            ids.setdefault(name, []).append(number)
        for name, several in ids.items():
            if len(several) > 1:
                numbered = ", ".join(map(str, several))
                log.warning("%s: categories %s have the same name %r and become one class", self.file, numbered, name)

    def _add_images(self, rows: Iterable[Row]) -> list[str]:
        """Add a record for each image. Return a problem if none has a file."""
        rows = list(rows)
        names = [file_name_of(row) for row in rows]
        folder, hits = fullest_folder(names, [self.images] if self.images else self._image_folders())
        # If most images of a sample are in a folder, the others are missing: a search could find those of another split.
        root = folder if hits else image_root(self.file)
        finder = None if hits > 0.5 else ImageFinder(root, images=self.images)
        for row, name in zip(rows, names, strict=True):
            self._add_image(row, name, folder, finder)
        for number, records in self._by_id.items():
            if len(records) > 1:
                for record in records:
                    listed = ", ".join(one.path.name for one in records)
                    record.doubts.append(
                        f"{self.file}: image id {shown(number)}: {len(records)} images have it ({listed}), so it is unknown "
                        "whose its annotations are. Give each image an id of its own"
                    )
        if finder is None:
            return []
        finder.log_substitutes(self.file)
        if not finder.all_missing(self.file):
            return []
        searched = ", ".join(map(str, dict.fromkeys(self._image_folders())))
        return [
            f"{self.file}: its images are in none of these folders: {searched}, nor below {finder.root}. "
            "Put them in one of these, or name their folder with --images (data.images)"
        ]

    def _image_folders(self) -> list[Path]:
        parent, root, stem = self.file.parent, self.file.parent.parent, self.file.stem.removeprefix("instances_")
        split = split_of(self.file.stem)
        near = [parent, parent / "images", parent / stem, *_folders_of(parent, split)]
        return [
            *near,
            root / stem,
            root / "images" / stem,
            root / "images",
            *_folders_of(root, split),
            root,
        ]

    def _add_image(self, row: Row, name: str, folder: Path, finder: ImageFinder | None) -> None:
        key = parse_id(row.get("id"))
        where = f"{self.file}: image {shown(row.get('id'))}"
        if key is None or not name:
            lacking = "an id, a whole number or a text" if key is None else "a file_name"
            self._lost(f"{where}: must have {lacking}")
            if key is not None:
                self._by_id[key] = []
            return
        problems: list[str] = []
        path = finder.find(name, where, problems) if finder else (folder / name).absolute()
        same_id = self._by_id.setdefault(key, [])
        if any(record.path == path for record in same_id):
            self.problems.append(Problem("repeated id", f"{where}: the same image is listed twice; one is used"))
            return
        number = key if isinstance(key, int) and not same_id else self._free_id()
        record = Record.with_size(path, number, row.get("width"), row.get("height"))
        record.doubts += problems
        record.stated = name
        same_id.append(record)
        self.records.append(record)

    def _free_id(self) -> int:
        return max((record.image_id for record in self.records), default=-1) + 1

    def _add_annotation(self, row: Row, seen_ids: set[object]) -> None:
        number = row.get("id")
        where = f"{self.file}: annotation {shown(number)}"
        image_id, category = parse_id(row.get("image_id")), parse_whole(row.get("category_id"))
        if category in self._stuff:
            self._num_stuff += 1
            return
        if isinstance(number, (str, int, float)):
            unique = (str(image_id), str(number)) if self._is_panoptic else str(number)
            if unique in seen_ids:
                message = f"{where}: the id occurs twice, must be unique. The copy of --fix has new ids"
                self.problems.append(Problem("repeated id", message))
            seen_ids.add(unique)
        records = [] if image_id is None else self._by_id.get(image_id)
        if records is None or image_id is None:
            self._unknown_images |= set() if image_id is None else {str(image_id)}
            self._lost(f"{where}: image {shown(row.get('image_id'))} is not among the file's images")
            return
        if not records:
            self._lost(f"{where}: its image has no file_name")
        if len(records) > 1:
            records[0].unreadable.append(f"{where}: {shown(image_id)} is the id of {len(records)} images")
        if len(records) != 1:
            return
        self._add_object(records[0], row, where, None if category is None else self.categories.get(category))

    def _add_object(self, record: Record, row: Row, where: str, name: str | None) -> None:
        fault = f"category {shown(row.get('category_id'))} is not among the file's categories"
        box = box_of(row, where, record.unreadable)
        if box is None:
            return
        area = parse_numbers([row.get("area")], 1)
        flags = Flags(*(parse_flag(row.get(key), key, where, record.unreadable) for key in _FLAGS))
        record.add(
            box,
            name or "",
            area=area[0] if area else None,
            annotation_id=parse_whole(row.get("id")),
            flags=flags,
            fault="" if name else f"{where}: {fault}",
        )


def _folders_of(parent: Path, split: str | None) -> Iterable[Path]:
    return (folder for word, folder in split_folders(parent) if word == split)
