"""What the columns of a table of boxes mean, by the names that tools give them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detr_ft.data.box_format import FORMATS, BoxFormat

# Names are compared in small letters, without what is neither letter nor digit: XMin, x_min and xmin are one.
_FILE = ("filename", "imagepath", "filepath", "imagename", "image", "path", "file", "imageid", "img")
_CLASS = ("class", "classname", "label", "labelname", "category", "categoryname", "name")
_X_LOW = ("xmin", "x1", "left", "bboxxmin", "bboxx1", "bboxleft", "xtl")
_Y_LOW = ("ymin", "y1", "top", "bboxymin", "bboxy1", "bboxtop", "ytl")
_X_HIGH = ("xmax", "x2", "right", "bboxxmax", "bboxx2", "bboxright", "xbr")
_Y_HIGH = ("ymax", "y2", "bottom", "bboxymax", "bboxy2", "bboxbottom", "ybr")
_X_CENTRE = ("cx", "xcenter", "xcentre", "centerx", "centrex", "bboxcx")
_Y_CENTRE = ("cy", "ycenter", "ycentre", "centery", "centrey", "bboxcy")
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

# The four columns of a box, and the corners that their names may mean.
_BOXES = (
    ((_X_LOW, _Y_LOW, _X_HIGH, _Y_HIGH), ("xyxy",)),
    ((_X_CENTRE, _Y_CENTRE, _WIDTH, _HEIGHT), ("cxcywh",)),
    ((_X_LOW, _Y_LOW, _WIDTH, _HEIGHT), ("xywh",)),
    ((_X, _Y, _WIDTH, _HEIGHT), ("xywh", "cxcywh")),
)
_NEEDED = {
    "the image's file": "filename, image, image_path, file, path or ImageID",
    "the class": "class, label, name, category or LabelName",
    "the box": "xmin, ymin, xmax, ymax, or x, y, width, height, or cx, cy, width, height, or bbox with all four",
}


@dataclass(frozen=True)
class Header:
    """The places of a table's columns, and the formats among which its boxes are; `box` is one column, or four."""

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
        """The header of these cells, or a sentence that says what is missing or doubled."""
        places = {_plain(cell): place for place, cell in reversed(list(enumerate(cells)))}
        file, name, (box, corners) = _find(places, _FILE), _find(places, _CLASS), _find_box(places)
        missing = [what for what, found in zip(_NEEDED, (file, name, box), strict=True) if found is None]
        if file is None or name is None or box is None:
            needs = "; ".join(f"{what} ({_NEEDED[what]})" for what in missing)
            return f"the first line must name the columns; it needs {needs}; it has {', '.join(cells)[:300]}"
        names = [cell.strip() for cell in cells if cell.strip()]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            return f"the column {doubled[0]!r} is there twice; rename or remove one"
        sides = [_find(places, names, but=box) for names in (_IMAGE_WIDTH, _IMAGE_HEIGHT)]
        # Open Images' numbers are fractions by its definition; in other tables they tell it themselves.
        unit = "fractions" if {"imageid", "labelname"} <= places.keys() else ""
        formats = tuple(one for one in FORMATS if one.corners in corners and unit in ("", one.unit))
        size = None if sides[0] is None or sides[1] is None else (sides[0], sides[1])
        return cls(
            file,
            name,
            box,
            formats,
            size,
            *(_find(places, names) for names in (_CROWD, _DIFFICULT, _TRUNCATED, _SPLIT)),
        )


def _plain(cell: str) -> str:
    return re.sub(r"[^a-z0-9]", "", cell.lower())


def _find(places: Mapping[str, int], names: Sequence[str], but: Sequence[int] = ()) -> int | None:
    return next((places[name] for name in names if name in places and places[name] not in but), None)


def _find_box(places: Mapping[str, int]) -> tuple[tuple[int, ...] | None, tuple[str, ...]]:
    """The columns of the box: four, or the one that holds all four numbers; and the corners that they may mean."""
    for columns, corners in _BOXES:
        x, y, right, bottom = (_find(places, names) for names in columns)
        if x is not None and y is not None and right is not None and bottom is not None:
            return (x, y, right, bottom), corners
    whole = _find(places, _WHOLE_BOX)
    return (None, ()) if whole is None else ((whole,), ("xywh", "xyxy", "cxcywh"))
