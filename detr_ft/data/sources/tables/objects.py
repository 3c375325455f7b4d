"""The objects of one image as data sets write them, a dictionary of lists or a list of dictionaries, into a record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detr_ft.data.sources.flags import flag
from detr_ft.data.sources.record import Flags, Record, is_id, numbers
from detr_ft.data.sources.text import shown

BOX_KEYS = ("bbox", "bboxes", "boxes")
CATEGORY_KEYS = ("category", "categories", "label", "labels", "class", "label_id", "category_id")
_FLAG_KEYS = (("iscrowd", "is_crowd", "crowd"), ("difficult",), ("truncated",))


def add_objects(
    record: Record,
    objects: Mapping[str, Any],
    keys: tuple[str, str],
    names: Sequence[str] | None,
    where: str,
    problems: list[str],
) -> None:
    """Append objects, a dictionary of lists, to the record; what is wrong with them is added to `problems`.

    `keys` are those of boxes (taken as they are) and categories; `names` turn categories into names where they are indices.
    `id`, `area`, `iscrowd`, `difficult` and `truncated` are read where given.
    """
    box_key, category_key = keys
    boxes, categories = objects.get(box_key), objects.get(category_key)
    boxes, categories = [] if boxes is None else boxes, [] if categories is None else categories
    if not isinstance(boxes, list) or not isinstance(categories, list) or len(boxes) != len(categories):
        problems.append(f"{where}: objects must hold the lists {box_key} and {category_key}, of the same length")
        return
    extras = _extras(objects, len(boxes), where, problems)
    areas, ids = extras.get("area"), extras.get("id")
    keeps_ids = ids is not None and all(map(is_id, ids)) and len(set(ids)) == len(ids)
    for index, (values, category) in enumerate(zip(boxes, categories, strict=True)):
        box, name = numbers(values, 4), _name(category, names)
        if box is None or name is None:
            problems.append(f"{where}: object {index} {_expected(box is None, box_key, category_key, category, names)}")
            continue
        area = numbers(areas[index : index + 1], 1) if areas is not None else None
        flags = Flags(*(_flag(extras, keys, index, where, problems) for keys in _FLAG_KEYS))
        record.add(
            box, name, area=area[0] if area else None, number=ids[index] if ids and keeps_ids else index, flags=flags
        )


def as_lists(objects: Any) -> Any:
    """Objects as a dictionary of lists, if they are a list of dictionaries or None; anything else stays as it is."""
    if objects is None:
        return {}
    if isinstance(objects, list) and all(isinstance(one, Mapping) for one in objects):
        return {key: [one.get(key) for one in objects] for key in dict.fromkeys(key for one in objects for key in one)}
    return objects


def as_columns(row: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The lists at the top of a row, for objects that have no column of their own."""
    return {key: values for key, values in row.items() if isinstance(values, list)}


def natural(names: Iterable[str]) -> list[str]:
    """Names sorted: words by letters, then whole numbers by their value."""
    return sorted(set(names), key=_natural_key)


def _natural_key(name: str) -> tuple[int, str, str]:
    """Whole numbers by how many digits they have, then by these: Python won't make a number of thousands of them."""
    digits = name.lstrip("0") if name.isdecimal() else ""
    return (len(digits) + 1, digits, name) if name.isdecimal() else (0, "", name)


def _extras(objects: Mapping[str, Any], count: int, where: str, problems: list[str]) -> dict[str, list[Any]]:
    """The optional lists that are given; one of another length than there are objects is a problem."""
    found = {}
    for key in ("id", "area", *(key for keys in _FLAG_KEYS for key in keys)):
        values = objects.get(key)
        if values is None:
            continue
        if isinstance(values, list) and len(values) == count:
            found[key] = values
        else:
            problems.append(f"{where}: {key} must be a list with one value for each of the {count} objects")
    return found


def _flag(extras: Mapping[str, list[Any]], keys: Sequence[str], index: int, where: str, problems: list[str]) -> bool:
    place = f"{where}: object {index}"
    said = [flag(extras[key][index], key, place, problems) for key in keys if key in extras]
    return any(said)


def _name(category: object, names: Sequence[str] | None) -> str | None:
    """The name of a category given as text, as a whole number, or as an index into `names`; None where it is neither."""
    if isinstance(category, float) and category.is_integer():
        category = int(category)  # pandas makes floats of whole numbers beside gaps
    if isinstance(category, str):
        return category if category and (names is None or category in names) else None
    if not isinstance(category, int) or isinstance(category, bool):
        return None
    if names is None:
        return str(category)
    return names[category] if 0 <= category < len(names) else None


def _expected(
    box_is_wrong: bool, box_key: str, category_key: str, category: object, names: Sequence[str] | None
) -> str:
    if box_is_wrong or names is None or category is None:
        return f"needs a {box_key} of four numbers and a {category_key}"
    return (
        f"has the {category_key} {shown(category)}, which is none of the {len(names)} classes {', '.join(names[:12])}"
    )
