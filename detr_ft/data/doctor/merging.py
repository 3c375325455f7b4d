"""Classes of the same name, and images of the same bytes, merged into one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.doctor.changes import Change
from detr_ft.data.integrity.scan import DatasetScan, ScannedImage
from detr_ft.data.schema import class_names, provenance, with_columns


def merge_classes(data: DatasetDict) -> tuple[DatasetDict, list[Change]]:
    """The data set with such classes under the name that most boxes have, and a change for each box that was renamed.

    Single letters stay apart: a and A are two classes of a data set of letters.
    """
    names = class_names(next(iter(data.values())))
    merged = _merged(names, _box_counts(data))
    kept = list(dict.fromkeys(merged))
    if kept == names:
        return data, []
    index = {number: kept.index(name) for number, name in enumerate(merged)}
    changes = [change for split, rows in data.items() for change in _changes(split, rows, names, merged)]
    return DatasetDict({split: _renumbered(rows, kept, index) for split, rows in data.items()}), changes


def same_class(name: str) -> str:
    """What two names have in common if they mean one class: all but case, where they are words, and blanks around."""
    plain = name.strip()
    return plain.casefold() if len(plain) > 1 else plain


def _merged(names: list[str], counts: Mapping[int, int]) -> list[str]:
    """For each class the name that it gets: of those that are the same the one that most boxes have, without blanks."""
    best: dict[str, str] = {}
    for number in sorted(range(len(names)), key=lambda number: -counts[number]):
        best.setdefault(same_class(names[number]), names[number].strip())
    return [best[same_class(name)] for name in names]


def _box_counts(data: DatasetDict) -> Counter[int]:
    return Counter(label for rows in data.values() for objects in rows["objects"] for label in objects["category"])


def _changes(split: str, rows: Dataset, names: list[str], merged: list[str]) -> Iterator[Change]:
    for row in rows.with_format(None).select_columns(["image", "image_id", "objects"]):
        image, objects = row["image"], row["objects"]
        file = image["path"] or provenance(image, row["image_id"])
        for number, label in zip(objects["id"], objects["category"], strict=True):
            if 0 <= label < len(names) and names[label] != merged[label]:
                what = f"of class {names[label]!r} renamed {merged[label]!r}"
                yield Change(split, file, row["image_id"], number, what, names[label], merged[label])


def _renumbered(rows: Dataset, names: list[str], index: Mapping[int, int]) -> Dataset:
    """The split with these classes in the place of its own; a class that is unknown stays so."""
    objects: list[dict[str, Any]] = [
        {**one, "category": [index.get(label, label) for label in one["category"]]} for one in rows["objects"]
    ]
    return with_columns(rows, {"objects": objects}, names)


Row = dict[str, Any]  # width, height and objects, as in the schema

# Of images in several splits the copy stays in the first of these: what is measured on is not to be seen in training.
_KEPT_FIRST = ("test", "validation", "train")


def merge_copies(rows: Mapping[str, list[Row | None]], looks: DatasetScan) -> Iterator[Change]:
    """Of the rows with the same bytes all but one become None, in place, and that one gets the boxes of all; the changes.

    Of boxes that are the same, class included, there is one in the end. Rows that are None already have no part in it.
    """
    kept: dict[bytes, tuple[str, Row]] = {}
    for split in sorted(rows, key=lambda split: _KEPT_FIRST.index(split) if split in _KEPT_FIRST else -1):
        for place, (row, one) in enumerate(zip(rows[split], looks.splits[split], strict=True)):
            if row is None:
                continue
            if one.digest not in kept:
                kept[one.digest] = f"kept as {one.name} in {split}", row
                continue
            rows[split][place] = None
            where, stays = kept[one.digest]
            yield _change(split, one, None, "left out: the same bytes as another", one.name, where)
            for number, box in _move(row["objects"], stays["objects"]):
                yield _change(split, one, number, "moved to the copy that is kept", box, where)


def _move(objects: Mapping[str, list[Any]], into: Mapping[str, list[Any]]) -> Iterator[tuple[int, list[float]]]:
    """Append to the other objects those that aren't among them; id and box of each."""
    there = {(tuple(box), label) for box, label in zip(into["bbox"], into["category"], strict=True)}
    for place, (box, label) in enumerate(zip(objects["bbox"], objects["category"], strict=True)):
        if (tuple(box), label) not in there:
            for key, values in objects.items():
                into[key].append(values[place])
            yield objects["id"][place], box


def _change(
    split: str, one: ScannedImage, number: int | None, what: str, before: str | list[float], after: str
) -> Change:
    return Change(split, one.path or one.name, one.image_id, number, what, before, after)
