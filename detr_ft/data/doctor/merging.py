"""Merging of classes with the same name, and of images with the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from datasets import Dataset, DatasetDict

from detr_ft.data.doctor.changes import Change
from detr_ft.data.integrity.scan import DatasetScan, ScannedImage
from detr_ft.data.schema import class_names, provenance, with_columns

Row = dict[str, Any]  # width, height and objects, as in the schema

# The split that one of several copies stays in: images of evaluation must not occur in training. Where all training images
# do, they stay there: without them nothing could be trained.
_SPLIT_PRECEDENCE = ("test", "validation", "train")
_TRAIN_PRECEDENCE = ("train", "test", "validation")


def merge_classes(data: DatasetDict) -> tuple[DatasetDict, list[Change]]:
    """Merge classes with names that differ in case or outer blanks, with a change for each box renamed.

    The name that most boxes have remains. Single letters are not merged: a and A may be two classes.
    """
    names = class_names(next(iter(data.values())))
    new_names = _merged_names(names, _box_counts(data))
    merged = list(dict.fromkeys(new_names))
    if merged == names:
        return data, []
    index = {number: merged.index(name) for number, name in enumerate(new_names)}
    changes = [change for split, rows in data.items() for change in _changes(split, rows, names, new_names)]
    return DatasetDict({split: _renumbered(rows, merged, index) for split, rows in data.items()}), changes


def class_key(name: str) -> str:
    """Return the key that names of one class share: without outer blanks, and words in lower case."""
    plain = name.strip()
    return plain.casefold() if len(plain) > 1 else plain


def _merged_names(names: list[str], counts: Mapping[int, int]) -> list[str]:
    """Return the new name of each class: the one of its key that most boxes have, without outer blanks."""
    best: dict[str, str] = {}
    for number in sorted(range(len(names)), key=lambda number: -counts[number]):
        best.setdefault(class_key(names[number]), names[number].strip())
    return [best[class_key(name)] for name in names]


def _box_counts(data: DatasetDict) -> Counter[int]:
    return Counter(label for rows in data.values() for objects in rows["objects"] for label in objects["category"])


def _changes(split: str, rows: Dataset, names: list[str], new_names: list[str]) -> Iterator[Change]:
    for row in rows.with_format(None).select_columns(["image", "image_id", "objects"]):
        image, objects = row["image"], row["objects"]
        file = image["path"] or provenance(image, row["image_id"])
        for number, label in zip(objects["id"], objects["category"], strict=True):
            if 0 <= label < len(names) and names[label] != new_names[label]:
                what = f"of class {names[label]!r} renamed {new_names[label]!r}"
                yield Change(split, file, row["image_id"], number, what, names[label], new_names[label])


def _renumbered(rows: Dataset, names: list[str], index: Mapping[int, int]) -> Dataset:
    """Return the split with these classes; labels that are no class do not change."""
    objects: list[dict[str, Any]] = [
        {**row, "category": [index.get(label, label) for label in row["category"]]} for row in rows["objects"]
    ]
    return with_columns(rows, {"objects": objects}, names)


def merge_copies(rows: Mapping[str, list[Row | None]], scan: DatasetScan) -> Iterator[Change]:
    """Merge rows whose images have the same bytes, in place: all but one become None. Yields the changes.

    The remaining row gets the boxes of all, without repeated boxes of one class. Rows that are None are ignored.
    """
    remaining: dict[bytes, tuple[str, Row]] = {}
    precedence = _precedence(rows, scan)
    for split in sorted(rows, key=lambda split: precedence.index(split) if split in precedence else -1):
        for index, (row, image) in enumerate(zip(rows[split], scan.splits[split], strict=True)):
            if row is None:
                continue
            if image.digest not in remaining:
                remaining[image.digest] = f"remains as {image.name} in {split}", row
                continue
            rows[split][index] = None
            location, target = remaining[image.digest]
            yield _change(split, image, None, "left out: the same bytes as another", image.name, location)
            for number, box in _move(row["objects"], target["objects"]):
                yield _change(split, image, number, "moved to the copy that remains", box, location)


def _precedence(rows: Mapping[str, list[Row | None]], scan: DatasetScan) -> tuple[str, ...]:
    digests = {
        split: {image.digest for row, image in zip(some, scan.splits[split], strict=True) if row is not None}
        for split, some in rows.items()
    }
    train = digests.pop("train", set())
    return _TRAIN_PRECEDENCE if train and train <= set().union(*digests.values()) else _SPLIT_PRECEDENCE


def _move(objects: Mapping[str, list[Any]], target: Mapping[str, list[Any]]) -> Iterator[tuple[int, list[float]]]:
    """Append the objects that `target` lacks to it; yield id and box of each."""
    present = {(tuple(box), label) for box, label in zip(target["bbox"], target["category"], strict=True)}
    for position, (box, label) in enumerate(zip(objects["bbox"], objects["category"], strict=True)):
        if (tuple(box), label) not in present:
            for key, values in objects.items():
                target[key].append(values[position])
            yield objects["id"][position], box


def _change(
    split: str, image: ScannedImage, number: int | None, what: str, before: str | list[float], after: str
) -> Change:
    return Change(split, image.path or image.name, image.image_id, number, what, before, after)
