"""What a mended copy lacks, told where it is so much that the copy is hardly the same data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from datasets import DatasetDict

from detr_ft.data.doctor.repair.repair import Mended

_MUCH = 0.1  # share of images, or of boxes
_LEFT_OUT = "left out: "  # so the changes begin that tell of it


def told_losses(data: DatasetDict, mended: Mended) -> Iterator[str]:
    """A line each for images and for boxes where more than a tenth is left out, and for a split of which nothing is left."""
    left = [(one, one.what.removeprefix(_LEFT_OUT)) for one in mended.changes if one.what.startswith(_LEFT_OUT)]
    images = Counter(why for one, why in left if one.annotation_id is None)
    boxes = Counter(why for one, why in left if one.annotation_id is not None)
    before = _boxes(data)
    boxes["with their images"] = before - _boxes(mended.data) - boxes.total()
    yield from _told("images", images, sum(map(len, data.values())))
    yield from _told("boxes", boxes, before)
    for split in data:
        if split not in mended.data:
            yield f"WARNING: no image of {split} is left, so that the mended copy has no such split"


def _told(noun: str, reasons: Counter[str], before: int) -> Iterator[str]:
    lost = reasons.total()
    if lost > _MUCH * before:
        named = ", ".join(f"{why} {count}" for why, count in reasons.most_common() if count)
        yield f"WARNING: {lost} of {before} {noun} ({lost / before:.0%}) are left out of the mended copy: {named}"


def _boxes(data: DatasetDict) -> int:
    return sum(len(objects["bbox"]) for rows in data.values() for objects in rows["objects"])
