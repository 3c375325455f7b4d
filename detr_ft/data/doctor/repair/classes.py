"""Classes whose names are the same but for case and the blanks around them become one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.doctor.repair.change_log import Change
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
