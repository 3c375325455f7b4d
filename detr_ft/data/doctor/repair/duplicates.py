"""Images that are there several times: one record stays, and the boxes that only the others have come to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detr_ft.data.doctor.repair.change_log import Change
from detr_ft.data.doctor.scan import Looks
from detr_ft.data.integrity.scan import ScannedImage

Row = dict[str, Any]  # width, height and objects, as in the schema

# Of images in several splits the copy stays in the first of these: what is measured on is not to be seen in training.
_KEPT_FIRST = ("test", "validation", "train")


def merge_copies(rows: Mapping[str, list[Row | None]], looks: Looks) -> Iterator[Change]:
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
