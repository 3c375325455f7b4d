"""Columns of a table of boxes, by the names that tools give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detr_ft.data.box_format import FORMATS, BoxFormat

# Names are compared as lower-case letters and digits: XMin, x_min and xmin are equal.
_FILE = ("filename", "imagepath", "filepath", "imagename", "image", "path", "file", "imageid", "img")
_CLASS = ("class", "classname", "label", "labelname", "category", "categoryname", "name")
_X_LOW = ("xmin", "x1", "left", "bboxxmin", "bboxx1", "bboxleft", "xtl")
_Y_LOW = ("ymin", "y1", "top", "bboxymin", "bboxy1", "bboxtop", "ytl")
_X_HIGH = ("xmax", "x2", "right", "bboxxmax", "bboxx2", "bboxright", "xbr")
_Y_HIGH = ("ymax", "y2", "bottom", "bboxymax", "bboxy2", "bboxbottom", "ybr")
_X_CENTER = ("cx", "xcenter", "xcentre", "centerx", "centrex", "bboxcx")
_Y_CENTER = ("cy", "ycenter", "ycentre", "centery", "centrey", "bboxcy")
_WHOLE_BOX = ("bbox", "box", "boundingbox", "bndbox", "bboxes", "boxes")
_SPLIT = ("split", "set", "subset", "partition")
_X, _Y = ("x", "bboxx", "boxx"), ("y", "bboxy", "boxy")
_WIDTH = ("bboxwidth", "bboxw", "boxwidth", "boxw", "w", "width")
_HEIGHT = ("bboxheight", "bboxh", "boxheight", "boxh", "h", "height")
_IMAGE_WIDTH, _IMAGE_HEIGHT = (
    ("imagewidth", "imgwidth", "imwidth", "width"),
    ("imageheight", "imgheight", "imheight", "height"),
)
_CROWD, _DIFFICULT, _TRUNCATED = (
    ("isgroupof", "iscrowd", "crowd"),
    ("difficult", "isdifficult"),
    ("truncated", "istruncated"),
)

# The four columns of a box, and the possible corners of a format with these names.
_BOXES = (
    ((_X_LOW, _Y_LOW, _X_HIGH, _Y_HIGH), ("xyxy",)),
    ((_X_CENTER, _Y_CENTER, _WIDTH, _HEIGHT), ("cxcywh",)),
    ((_X_LOW, _Y_LOW, _WIDTH, _HEIGHT), ("xywh",)),
    ((_X, _Y, _WIDTH, _HEIGHT), ("xywh", "cxcywh")),
)
_REQUIRED = {
    "the image's file": "filename, image, image_path, file, path or ImageID",
    "the class": "class, label, name, category or LabelName",
    "the box": "xmin, ymin, xmax, ymax, or x, y, width, height, or cx, cy, width, height, or bbox with all four",
}

_MAX_CHARS_SHOWN = 300  # of a first line in a message


@dataclass(frozen=True)
class Header:
    """The indices of a table's columns, and the possible formats of its boxes.

    `box` is one column or four.
    """

    file: int
    name: int
    box: tuple[int, ...]
    formats: tuple[BoxFormat, ...]
    size: tuple[int, int] | None
    crowd: int | None
    difficult: int | None
    truncated: int | None
    split: int | None

    @classmethod
    def read(cls, cells: Sequence[str]) -> Header | str:
        """Return the header of these cells, or a message with what is missing or duplicated."""
        columns = {_normalize(cell): index for index, cell in reversed(list(enumerate(cells)))}
        file, name, (box, corners) = _find(columns, _FILE), _find(columns, _CLASS), _find_box(columns)
        missing = [part for part, index in zip(_REQUIRED, (file, name, box), strict=True) if index is None]
        if file is None or name is None or box is None:
            required = "; ".join(f"{part} ({_REQUIRED[part]})" for part in missing)
            return f"the first line must name {required}; it has {', '.join(cells)[:_MAX_CHARS_SHOWN]}"
        names = [cell.strip() for cell in cells if cell.strip()]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            return f"the column {duplicates[0]!r} occurs twice. Rename or remove one of them"
        sides = [_find(columns, names, excluded=box) for names in (_IMAGE_WIDTH, _IMAGE_HEIGHT)]
        # Open Images defines its numbers as fractions; in other tables the unit is recognized.
        unit = "fractions" if {"imageid", "labelname"} <= columns.keys() else ""
        formats = tuple(format for format in FORMATS if format.corners in corners and unit in ("", format.unit))
        size = None if sides[0] is None or sides[1] is None else (sides[0], sides[1])
        return cls(
            file,
            name,
            box,
            formats,
            size,
            *(_find(columns, names) for names in (_CROWD, _DIFFICULT, _TRUNCATED, _SPLIT)),
        )


def _normalize(cell: str) -> str:
    return re.sub(r"[^a-z0-9]", "", cell.lower())


def _find(columns: Mapping[str, int], names: Sequence[str], excluded: Sequence[int] = ()) -> int | None:
    return next((columns[name] for name in names if name in columns and columns[name] not in excluded), None)


def _find_box(columns: Mapping[str, int]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """Return the columns of the box, one or four, and the possible corners of its format."""
    for sides, corners in _BOXES:
        x, y, right, bottom = (_find(columns, names) for names in sides)
        if x is not None and y is not None and right is not None and bottom is not None:
            return (x, y, right, bottom), corners
    box = _find(columns, _WHOLE_BOX)
    return (None, ()) if box is None else ((box,), ("xywh", "xyxy", "cxcywh"))
