"""The changes of a repair: a log of them, and a warning where much is left out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from datasets import DatasetDict

_MUCH = 0.1  # share of images, or of boxes
_LEFT_OUT = "left out: "  # so the changes begin that tell of it

Value = str | Sequence[float] | None


@dataclass(frozen=True)
class Change:
    """One change to an image's record or, with `annotation_id`, to a box: pixels, x, y, width, height, before and after.

    `after` is None for what was left out.
    """

    split: str
    file: str
    image_id: int
    annotation_id: int | None
    what: str
    before: Value
    after: Value


@dataclass(frozen=True)
class RepairedData:
    """The mended data set, in the schema, and what was changed."""

    data: DatasetDict
    changes: tuple[Change, ...]


def to_json_lines(changes: Iterable[Change]) -> str:
    """The changes as JSON, one a line; NaN and infinite numbers, which JSON doesn't have, as text."""
    lines = []
    for one in changes:
        told = asdict(one) | {"before": _plain(one.before), "after": _plain(one.after)}
        lines.append(json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def summarize_changes(changes: Iterable[Change]) -> str:
    """What was done, how many times, the most frequent first."""
    counts = Counter(("image" if one.annotation_id is None else "box", one.what) for one in changes)
    told = [f"{noun} {what}: {count}" for (noun, what), count in counts.most_common()]
    return "\n".join(told) or "nothing had to be changed"


def _plain(value: Value) -> object:
    if value is None or isinstance(value, str):
        return value
    return [number if math.isfinite(number) else str(number) for number in value]


def left_out_warnings(data: DatasetDict, mended: RepairedData) -> Iterator[str]:
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
