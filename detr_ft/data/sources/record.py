"""What every reader of files fills in, one record an image, and how records become a data set in the schema."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.images import ImageError, ImageSource, image_size
from detr_ft.data.schema import SPLITS, detection_features, detection_objects
from detr_ft.data.sources.errors import UNKNOWN, Place, UnknownClassError, grouped, raise_all
from detr_ft.data.sources.parsing import is_storable, parse_side
from detr_ft.errors import InputError

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
        cls, path: Path, image_id: int, width: object = None, height: object = None, image: ImageSource = ""
    ) -> Record:
        """A record of the stated width and height, or where those are none, of the size of the upright image.

        That is read from `image`, where it isn't the file at `path`.
        """
        sides = parse_side(width), parse_side(height)
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


def used_names(splits: Mapping[str, Iterable[Record]]) -> set[str]:
    """The names of the classes that occur in any split."""
    return {name for records in splits.values() for record in records for name in record.names}


def natural(names: Iterable[str]) -> list[str]:
    """Names sorted: words by letters, then whole numbers by their value."""
    return sorted(set(names), key=_natural_key)


def _natural_key(name: str) -> tuple[int, str, str]:
    """Whole numbers by how many digits they have, then by these: Python won't make a number of thousands of them."""
    digits = name.lstrip("0") if name.isdecimal() else ""
    return (len(digits) + 1, digits, name) if name.isdecimal() else (0, "", name)


def _faults(splits: Mapping[str, Sequence[Record]]) -> Iterator[tuple[Place, str]]:
    for split, records in splits.items():
        for row, record in enumerate(records):
            for place, fault in record.faults.items():
                yield (split, row, place), fault


def raise_with_faults(problems: Sequence[str], splits: Mapping[str, Sequence[Record]]) -> None:
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
