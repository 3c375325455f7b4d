"""The record of an image of annotation files, with its objects."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detr_ft.data.images import ImageError, ImageSource, image_size
from detr_ft.data.schema import detection_objects
from detr_ft.data.sources.parsing import parse_side
from detr_ft.data.sources.problems import UNKNOWN_CATEGORY

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Flags:
    """Attributes of an object besides box and class."""

    crowd: bool = False
    difficult: bool = False
    truncated: bool = False


_NO_FLAGS = Flags()


@dataclass
class Record:
    """One image and its objects.

    `boxes` are COCO xywh in pixels of the upright image, `names` their classes. `content` is the image file's bytes if
    the annotations contain them and there is no file at `path`. An image whose size is neither stated nor readable is 0
    by 0, and `image_error` is the reason. `unreadable` has a message for each part of the annotation that can't be read,
    `without_area` for each point or line, which is no box, and `doubts` for what is unknown about the image itself.
    An object of an undeclared class has an empty name; `faults` has a message for it, by its index. An `unlabeled` image
    has neither a label file nor a record, unlike one that is declared to have no objects. `stated` is the name of the image
    in the annotations, empty if it follows from the name of the annotation file.
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
    image_error: str = ""
    unreadable: list[str] = field(default_factory=list)
    without_area: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    faults: dict[int, str] = field(default_factory=dict)
    unlabeled: bool = False
    stated: str = ""

    @classmethod
    def with_size(
        cls, path: Path, image_id: int, width: object = None, height: object = None, image: ImageSource = ""
    ) -> Record:
        """Return a record of the stated width and height, else of the size of the upright image.

        That size is read from `image`, by default the file at `path`.
        """
        sides = parse_side(width), parse_side(height)
        if sides[0] is not None and sides[1] is not None:
            return cls(path, image_id, sides[0], sides[1])
        try:
            return cls(path, image_id, *image_size(image or path))
        except ImageError as error:
            return cls(path, image_id, 0, 0, image_error=str(error))

    def add(
        self,
        box: list[float],
        name: str,
        *,
        area: float | None = None,
        annotation_id: int | None = None,
        flags: Flags = _NO_FLAGS,
        fault: str = "",
    ) -> None:
        """Append an object.

        `area` (square pixels) is by default that of the box, `annotation_id` the index of the object. A `fault` is the
        message for an undeclared class; `name` is then empty.
        """
        if fault:
            self.faults[len(self.names)] = fault
        self.ids.append(len(self.ids) if annotation_id is None else annotation_id)
        self.boxes.append(box)
        self.names.append(name)
        self.areas.append(area)
        self.flags.append(flags)

    def objects(self, class_indices: Mapping[str, int]) -> dict[str, list[object]]:
        """Return the objects in the schema."""
        return detection_objects(
            self.boxes,
            [
                UNKNOWN_CATEGORY if index in self.faults else class_indices[name]
                for index, name in enumerate(self.names)
            ],
            ids=self.ids,
            area=[box[2] * box[3] if area is None else area for area, box in zip(self.areas, self.boxes, strict=True)],
            iscrowd=[flags.crowd for flags in self.flags],
            difficult=[flags.difficult for flags in self.flags],
            truncated=[flags.truncated for flags in self.flags],
        )
