"""Which columns of a table of `datasets` hold image and objects, and reading its rows into records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Image, LargeList, List, Value

from detr_ft.data.sources.record import Record, is_id
from detr_ft.data.sources.tables.objects import BOX_KEYS, CATEGORY_KEYS, add_objects, as_columns, as_lists
from detr_ft.data.sources.text import is_storable
from detr_ft.errors import InputError

IMAGE_KEYS = ("image", "image_path", "file_name", "filename", "path", "image_bytes", "img")

SIZE_KEYS = ("width", "height")

StoredImage = dict[str, Any]  # the schema's: path and bytes, either of which may be None


@dataclass(frozen=True)
class Columns:
    """The columns of image and objects (None: boxes and categories are columns of their own), and the keys in the latter.

    `names` are the classes, where the category is an index into them; relative paths of images start at one of `places`.
    """

    image: str
    objects: str | None
    boxes: str
    category: str
    names: tuple[str, ...] | None
    places: tuple[Path, ...] = ()

    @classmethod
    def find(cls, features: Features, origin: str, places: Sequence[Path] = ()) -> Columns:
        """The columns of a detection data set with these features; raises InputError where there are none."""
        image = _image_column(features)
        top = {name: feature for name, feature in features.items() if isinstance(feature, (List, LargeList))}
        candidates = [(name, _fields(feature)) for name, feature in features.items()] + [(None, top)]
        for objects, fields in candidates:
            box, category = _first(BOX_KEYS, fields), _first(CATEGORY_KEYS, fields)
            if image and box and category:
                label = _inner(fields[category])
                names = tuple(label.names) if isinstance(label, ClassLabel) else None
                return cls(image, objects, box, category, names, tuple(places))
        raise InputError(
            f"{origin}: not a detection data set: needs an image column, and objects with lists of {'/'.join(BOX_KEYS)} "
            f"and {'/'.join(CATEGORY_KEYS)}; it has {', '.join(features)}"
        )

    def needed(self, features: Features) -> list[str]:
        """The columns that `record` reads."""
        own = [self.objects] if self.objects else _object_columns(features)
        return [self.image, *own, *(key for key in ("image_id", *SIZE_KEYS) if key in features)]

    def record(self, row: Mapping[str, Any], number: int, origin: str, problems: list[str]) -> Record | None:
        """A row, whose image isn't decoded, as a record with boxes as they are written; None where it has no image."""
        where = f"{origin}, row {number}"
        image = self.stored_image(row)
        if image is None:
            problems.append(f"{where}: there is no image in column {self.image}")
            return None
        path, image_id = image["path"] or "", row.get("image_id")
        if not is_storable(path):
            problems.append(f"{where}: the image name {path!a} holds characters that can't be written; rename the file")
            return None
        known = image_id if isinstance(image_id, int) and is_id(image_id) else number
        record = Record.sized(Path(path), known, row.get("width"), row.get("height"), image)
        objects = as_lists(row[self.objects]) if self.objects else as_columns(row)
        if isinstance(objects, Mapping):
            add_objects(record, objects, (self.boxes, self.category), self.names, where, problems)
        else:
            problems.append(f"{where}: {self.objects} must hold lists of {self.boxes} and {self.category}")
        return record

    def stored_image(self, row: Mapping[str, Any]) -> StoredImage | None:
        """The row's image as path and bytes, a relative path made absolute; None where there is neither."""
        value = row[self.image]
        image = dict(value) if isinstance(value, Mapping) else {"path" if isinstance(value, str) else "bytes": value}
        path, data = image.get("path") or None, image.get("bytes") or None
        if data is None and path is not None:
            found = (place / path for place in self.places if os.path.isfile(place / path))
            path = str(next(found, self.places[0] / path if self.places else Path(path)))
        return {"path": path, "bytes": data} if path or data else None

    def is_path(self, row: Mapping[str, Any]) -> bool:
        """Whether the row names its image's file and doesn't hold its bytes."""
        image = self.stored_image(row)
        return image is not None and image["bytes"] is None


def _image_column(features: Features) -> str | None:
    """An image column, else a column of bytes and path, of bytes, or of paths under one of the usual names."""
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    stored = [name for name, feature in features.items() if _is_stored_image(feature)]
    paths = [name for name in IMAGE_KEYS if _is_value(features.get(name), "string", "large_string")]
    found = images or stored or paths
    return next((name for name in found if name in IMAGE_KEYS), found[0] if found else None)


def _is_stored_image(feature: Any) -> bool:
    struct = isinstance(feature, dict) and "bytes" in feature and set(feature) <= {"bytes", "path"}
    if struct:
        kinds = (("bytes", "binary", "large_binary", "null"), ("path", "string", "large_string", "null"))
        return all(_is_value(feature[key], *types) for key, *types in kinds if key in feature)
    return _is_value(feature, "binary", "large_binary")


def _is_value(feature: Any, *types: str) -> bool:
    return isinstance(feature, Value) and feature.dtype in types


def _object_columns(features: Features) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, (List, LargeList))]


def _fields(feature: Any) -> dict[str, Any]:
    """The fields of a column of objects: a dictionary of lists, or a list of dictionaries."""
    fields = _inner(feature)
    return fields if isinstance(fields, dict) else {}


def _first(keys: Sequence[str], fields: Mapping[str, Any]) -> str | None:
    """The first of the keys that is there; one whose values have names goes first."""
    there = [key for key in keys if key in fields]
    return next((key for key in there if isinstance(_inner(fields[key]), ClassLabel)), there[0] if there else None)


def _inner(feature: Any) -> Any:
    return getattr(feature, "feature", feature)
