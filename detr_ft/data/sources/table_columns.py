"""Columns of image and objects in a table of `datasets`, and records of its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Features, Image, LargeList, List, Value

from detr_ft.data.sources.image_finder import first_file
from detr_ft.data.sources.parsing import is_id, is_storable, parse_flag, parse_numbers, shown
from detr_ft.data.sources.record import Flags, Record
from detr_ft.errors import InputError

IMAGE_KEYS = ("image", "image_path", "file_name", "filename", "path", "image_bytes", "img")

SIZE_KEYS = ("width", "height")
BOX_KEYS = ("bbox", "bboxes", "boxes")
CATEGORY_KEYS = ("category", "categories", "label", "labels", "class", "label_id", "category_id")
_FLAG_KEYS = (("iscrowd", "is_crowd", "crowd"), ("difficult",), ("truncated",))

StoredImage = dict[str, Any]  # path and bytes, as in the schema; one of them may be None

_MAX_CLASSES_SHOWN = 12


@dataclass(frozen=True)
class Columns:
    """The columns of image and objects, and the keys of boxes and categories in the latter.

    `objects` is None if boxes and categories are columns themselves. `names` are the classes if categories are indices;
    relative paths of images start at one of `image_folders`.
    """

    image: str
    objects: str | None
    boxes: str
    category: str
    names: tuple[str, ...] | None
    image_folders: tuple[Path, ...] = ()

    @classmethod
    def find(cls, features: Features, origin: str, image_folders: Sequence[Path] = ()) -> Columns:
        """Return the columns of a detection data set. Raises InputError if there are none."""
        image = _image_column(features)
        top = {name: feature for name, feature in features.items() if isinstance(feature, (List, LargeList))}
        candidates = [(name, _fields(feature)) for name, feature in features.items()] + [(None, top)]
        for objects, fields in candidates:
            box, category = _first(BOX_KEYS, fields), _first(CATEGORY_KEYS, fields)
            if image and box and category:
                label = _inner(fields[category])
                names = tuple(label.names) if isinstance(label, ClassLabel) else None
                return cls(image, objects, box, category, names, tuple(image_folders))
        raise InputError(
            f"{origin}: not a detection data set, must have an image column and objects with lists of {'/'.join(BOX_KEYS)} "
            f"and {'/'.join(CATEGORY_KEYS)}; it has {', '.join(features)}"
        )

    def required(self, features: Features) -> list[str]:
        """Return the columns that `record` reads."""
        objects = [self.objects] if self.objects else _list_columns(features)
        return [self.image, *objects, *(key for key in ("image_id", *SIZE_KEYS) if key in features)]

    def record(self, row: Mapping[str, Any], number: int, origin: str) -> Record:
        """Convert a row, whose image is not decoded, to a record with unconverted boxes."""
        where = f"{origin}, row {number}"
        image = self.stored_image(row) or {"path": "", "bytes": None}
        path, image_id = image["path"] or "", row.get("image_id")
        storable = is_storable(path)
        image = image if storable else {"path": "", "bytes": None}
        known_id = image_id if isinstance(image_id, int) and is_id(image_id) else number
        record = Record.with_size(Path(path if storable else "?"), known_id, row.get("width"), row.get("height"), image)
        if not storable:
            record.unreadable.append(f"{where}: the image name {path!a} can't be written. Rename the file")
        elif not path and not image["bytes"]:
            record.unreadable.append(f"{where}: there is no image in column {self.image}")
        objects = as_lists(row[self.objects]) if self.objects else {self.boxes: None, **as_columns(row)}
        if isinstance(objects, Mapping):
            add_objects(record, objects, (self.boxes, self.category), self.names, where)
        else:
            record.unreadable.append(f"{where}: {self.objects} must have lists of {self.boxes} and {self.category}")
        return record

    def stored_image(self, row: Mapping[str, Any]) -> StoredImage | None:
        """Return the row's image as path and bytes, with the path of the file; None if there is neither."""
        value = row[self.image]
        image = dict(value) if isinstance(value, Mapping) else {"path" if isinstance(value, str) else "bytes": value}
        path, data = image.get("path") or None, image.get("bytes") or None
        if data is None and path is not None:
            file = first_file(folder / path for folder in self.image_folders)
            path = str(file or (self.image_folders[0] / path if self.image_folders else Path(path)))
        return {"path": path, "bytes": data} if path or data else None

    def is_path(self, row: Mapping[str, Any]) -> bool:
        """Return whether the row has the path of its image and not the bytes."""
        image = self.stored_image(row)
        return image is not None and image["bytes"] is None


def _image_column(features: Features) -> str | None:
    """Return the name of an image column, else of one of bytes, or of one of paths named in IMAGE_KEYS."""
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    stored = [name for name, feature in features.items() if _is_stored_image(feature)]
    paths = [name for name in IMAGE_KEYS if _is_value(features.get(name), "string", "large_string")]
    candidates = images or stored or paths
    return next((name for name in candidates if name in IMAGE_KEYS), candidates[0] if candidates else None)


def _is_stored_image(feature: Any) -> bool:
    struct = isinstance(feature, dict) and "bytes" in feature and set(feature) <= {"bytes", "path"}
    if struct:
        kinds = (("bytes", "binary", "large_binary", "null"), ("path", "string", "large_string", "null"))
        return all(_is_value(feature[key], *types) for key, *types in kinds if key in feature)
    return _is_value(feature, "binary", "large_binary")


def _is_value(feature: Any, *types: str) -> bool:
    return isinstance(feature, Value) and feature.dtype in types


def _list_columns(features: Features) -> list[str]:
    return [name for name, feature in features.items() if isinstance(feature, (List, LargeList))]


def _fields(feature: Any) -> dict[str, Any]:
    """Return the fields of a column of objects, a dictionary of lists or a list of dictionaries."""
    fields = _inner(feature)
    return fields if isinstance(fields, dict) else {}


def _first(keys: Sequence[str], fields: Mapping[str, Any]) -> str | None:
    """Return the first key whose values have class names, else the first key in the fields, else None."""
    known = [key for key in keys if key in fields]
    return next((key for key in known if isinstance(_inner(fields[key]), ClassLabel)), known[0] if known else None)


def _inner(feature: Any) -> Any:
    return getattr(feature, "feature", feature)


def add_objects(
    record: Record,
    objects: Mapping[str, Any],
    keys: tuple[str, str],
    names: Sequence[str] | None,
    where: str,
) -> None:
    """Append objects, a dictionary of lists, to the record, or what is wrong with them.

    `keys` are those of boxes, which are not converted, and of categories; `names` are the classes if categories are
    indices. `id`, `area`, `iscrowd`, `difficult` and `truncated` are optional.
    """
    box_key, category_key = keys
    problems = record.unreadable
    boxes, categories = objects.get(box_key), objects.get(category_key)
    boxes, categories = [] if boxes is None else boxes, [] if categories is None else categories
    is_lost = box_key not in objects and any(objects.values())
    if is_lost or not isinstance(boxes, list) or not isinstance(categories, list) or len(boxes) != len(categories):
        problems.append(f"{where}: objects must have the lists {box_key} and {category_key}, of the same length")
        return
    extras = _extras(objects, len(boxes), where, problems)
    areas, ids = extras.get("area"), extras.get("id")
    has_ids = ids is not None and all(map(is_id, ids)) and len(set(ids)) == len(ids)
    for index, (values, category) in enumerate(zip(boxes, categories, strict=True)):
        box, name = parse_numbers(values, 4), _name(category, names)
        if box is None or name is None:
            problems.append(
                f"{where}: object {index} {_requirement(box is None, box_key, category_key, category, names)}"
            )
            continue
        area = parse_numbers(areas[index : index + 1], 1) if areas is not None else None
        flags = Flags(*(_flag(extras, keys, index, where, problems) for keys in _FLAG_KEYS))
        record.add(
            box,
            name,
            area=area[0] if area else None,
            annotation_id=ids[index] if ids and has_ids else index,
            flags=flags,
        )


def as_lists(objects: Any) -> Any:
    """Convert a list of dictionaries, or None, to a dictionary of lists; return others unchanged."""
    if objects is None:
        return {}
    if isinstance(objects, list) and all(isinstance(item, Mapping) for item in objects):
        keys = dict.fromkeys(key for item in objects for key in item)
        return {key: [item.get(key) for item in objects] for key in keys}
    return objects


def as_columns(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the lists of a row, for objects without a column of their own."""
    return {key: values for key, values in row.items() if isinstance(values, list)}


def _extras(objects: Mapping[str, Any], count: int, where: str, problems: list[str]) -> dict[str, list[Any]]:
    """Return the optional lists; one of another length than the number of objects is a problem."""
    extras = {}
    for key in ("id", "area", *(key for keys in _FLAG_KEYS for key in keys)):
        values = objects.get(key)
        if values is None:
            continue
        if isinstance(values, list) and len(values) == count:
            extras[key] = values
        else:
            problems.append(f"{where}: {key} must be a list with one value for each of the {count} objects")
    return extras


def _flag(extras: Mapping[str, list[Any]], keys: Sequence[str], index: int, where: str, problems: list[str]) -> bool:
    position = f"{where}: object {index}"
    flags = [parse_flag(extras[key][index], key, position, problems) for key in keys if key in extras]
    return any(flags)


def _name(category: object, names: Sequence[str] | None) -> str | None:
    """Return the name of a category: a text, a whole number or an index into `names`; None for others."""
    if isinstance(category, float) and category.is_integer():
        category = int(category)  # pandas stores whole numbers beside missing values as floats
    if isinstance(category, str):
        return category if category and (names is None or category in names) else None
    if not isinstance(category, int) or isinstance(category, bool):
        return None
    if names is None:
        return str(category)
    return names[category] if 0 <= category < len(names) else None


def _requirement(
    box_is_wrong: bool, box_key: str, category_key: str, category: object, names: Sequence[str] | None
) -> str:
    if box_is_wrong or names is None or category is None:
        return f"must have a {box_key} of four numbers and a {category_key}"
    classes = ", ".join(names[:_MAX_CLASSES_SHOWN])
    return f"has the {category_key} {shown(category)}, must be one of the {len(names)} classes {classes}"
