"""What every reader of files fills in, one record an image, and how records become a data set in the schema."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.images import ImageError, Source, image_size
from detr_ft.data.schema import SPLITS, detection_features, detection_objects
from detr_ft.data.sources.errors import UNKNOWN, Place, UnknownClassError
from detr_ft.data.sources.problems import grouped, raise_all
from detr_ft.data.sources.text import is_storable
from detr_ft.errors import InputError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".jp2", ".png", ".tif", ".tiff", ".webp"})

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_LARGEST_ID, _LARGEST_SIDE = 2**63 - 1, 2**31 - 1

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flags:
    """What a format says of an object besides box and class."""

    crowd: bool = False
    difficult: bool = False
    truncated: bool = False


_PLAIN = Flags()


@dataclass
class Record:
    """One image and its objects: `boxes` are COCO xywh in pixels of the upright image, `names` their classes.

    `content` holds the image file's bytes where the annotations bring them along and there is no file at `path`. An image
    whose size is neither stated nor can be read is 0 by 0, and `trouble` says why. An object whose class is none of the
    data set's has an empty name, and `faults` says, by its place, where it stands and what it states.
    """

    path: Path
    image_id: int
    width: int
    height: int
    boxes: list[list[float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    areas: list[float | None] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    flags: list[Flags] = field(default_factory=list)
    content: bytes | None = None
    trouble: str = ""
    faults: dict[int, str] = field(default_factory=dict)

    @classmethod
    def sized(
        cls, path: Path, image_id: int, width: object = None, height: object = None, image: Source = ""
    ) -> Record:
        """A record of the stated width and height, or where those are none, of the size of the upright image.

        That is read from `image`, where it isn't the file at `path`.
        """
        sides = stated_side(width), stated_side(height)
        if sides[0] is not None and sides[1] is not None:
            return cls(path, image_id, sides[0], sides[1])
        try:
            return cls(path, image_id, *image_size(image or path))
        except ImageError as error:
            return cls(path, image_id, 0, 0, trouble=str(error))

    def add(
        self,
        box: list[float],
        name: str,
        *,
        area: float | None = None,
        number: int | None = None,
        flags: Flags = _PLAIN,
        fault: str = "",
    ) -> None:
        """Append an object; without `area` (square pixels) it is that of the box, without `number` its place from 0.

        A `fault` says that its class is none of the data set's; `name` is empty then.
        """
        if fault:
            self.faults[len(self.names)] = fault
        self.ids.append(len(self.ids) if number is None else number)
        self.boxes.append(box)
        self.names.append(name)
        self.areas.append(area)
        self.flags.append(flags)

    def objects(self, index: Mapping[str, int]) -> dict[str, list[object]]:
        """The objects in the schema; `index` gives the number of each class."""
        return detection_objects(
            self.boxes,
            [UNKNOWN if place in self.faults else index[name] for place, name in enumerate(self.names)],
            ids=self.ids,
            area=[b[2] * b[3] if a is None else a for a, b in zip(self.areas, self.boxes, strict=True)],
            iscrowd=[one.crowd for one in self.flags],
            difficult=[one.difficult for one in self.flags],
            truncated=[one.truncated for one in self.flags],
        )


def to_dataset(splits: Mapping[str, Sequence[Record]], names: Sequence[str], origin: Path) -> DatasetDict:
    """The records of each split as a data set whose classes are `names`; splits without images are left out.

    Raises UnknownClassError, which holds the data set all the same, where objects have other classes than these.
    """
    for split, records in splits.items():
        if not records:
            log.warning("%s: split %s has no images and is left out", origin, split)
    raise_all([*_unstorable((record for records in splits.values() for record in records), names, origin)])
    tell_of_troubles(record for records in splits.values() for record in records)
    filled = {split: splits[split] for split in SPLITS if splits.get(split)}
    if not filled:
        raise InputError(f"{origin}: the data set holds no images")
    if not names:
        raise InputError(f"{origin}: the data set names no classes")
    features, index = detection_features(list(names)), {name: i for i, name in enumerate(names)}
    data = DatasetDict(
        {
            split: Dataset.from_dict({"image": _images(records), **columns_of(records, index)}, features=features)
            for split, records in filled.items()
        }
    )
    faults = dict(_faults(filled))
    if faults:
        raise UnknownClassError(data, faults)
    return data


def _faults(splits: Mapping[str, Sequence[Record]]) -> Iterator[tuple[Place, str]]:
    for split, records in splits.items():
        for row, record in enumerate(records):
            for place, fault in record.faults.items():
                yield (split, row, place), fault


def refuse(problems: Sequence[str], splits: Mapping[str, Sequence[Record]]) -> None:
    """Raise InputError with the problems, if there are any, and what is to be said of unknown classes besides."""
    if problems:
        raise_all([*problems, *(fault for _, fault in _faults(splits))])


def tell_of_troubles(records: Iterable[Record]) -> None:
    """Say on the log which images can't be read; they stay, for the doctor to report."""
    for line, _ in grouped([record.trouble for record in records if record.trouble]):
        log.warning("%s", line)


def _unstorable(records: Iterable[Record], names: Sequence[str], origin: Path) -> Iterator[str]:
    """Problems with names that no file can bear or no table can hold."""
    for name in names:
        if not is_storable(name):
            yield f"{origin}: the class {name!a} holds characters that can't be written; rename it"
    for record in records:
        if not is_storable(str(record.path)):
            yield f"{origin}: the image name {str(record.path)!a} holds characters that can't be written; rename the file"


def _images(records: Sequence[Record]) -> list[dict[str, object]]:
    return [{"path": str(one.path), "bytes": one.content} for one in records]


def columns_of(records: Sequence[Record], index: Mapping[str, int]) -> dict[str, list[Any]]:
    """The columns of the schema but for `image`; `index` gives the number of each class."""
    return {
        "image_id": [one.image_id for one in records],
        "width": [one.width for one in records],
        "height": [one.height for one in records],
        "objects": [one.objects(index) for one in records],
    }


def split_of(word: str) -> str | None:
    """The split that a file's name speaks of (`valid`, `instances_val2017`, ...), if any."""
    found = (_SPLIT_WORDS.get(part) for part in re.split(r"[^a-z]+", word.lower()))
    return next((split for split in found if split), None)


def split_of_folder(folder: Path) -> str | None:
    """The split whose very name a folder bears, if any: words within a longer name say too little."""
    return _SPLIT_WORDS.get(folder.name.lower())


def split_folders(folder: Path) -> Iterator[tuple[str, Path]]:
    """The subfolders that bear a split's name, with that split."""
    for child in sorted(folder.iterdir()):
        split = split_of_folder(child)
        if split and child.is_dir():
            yield split, child


def images_in(folder: Path) -> list[Path]:
    """The image files of a folder and of its subfolders, sorted."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder that end so, sorted; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file()]
    except OSError:
        return []
    return sorted(folder / name for name in names if Path(name).suffix.lower() in suffixes)


def stated_side(value: object) -> int | None:
    """A width or height as a file states it, if it is a positive whole number that the schema can hold."""
    return int(value) if isinstance(value, (int, float)) and 0 < value <= _LARGEST_SIDE and value % 1 == 0 else None


def is_id(value: object) -> bool:
    """Whether the schema can hold this value as an image's id."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _LARGEST_ID


def numbers(values: object, count: int) -> list[float] | None:
    """The values as `count` floats (NaN and Inf are numbers here); None where they are anything else."""
    if not isinstance(values, list) or len(values) != count:
        return None
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
