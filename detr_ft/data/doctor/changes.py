"""The changes of a repair: their log, their summary, and a warning if much is left out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from datasets import DatasetDict

from detr_ft.data.sources.problems import Problem, ProblemKind, num_unread
from detr_ft.utils.files import read_regular
from detr_ft.utils.formatting import percent

_MIN_LEFT_OUT_FRACTION = 0.1  # of images, or of boxes, for a warning
CHANGE_LOG = "changes.jsonl"
_LEFT_OUT = "left out: "  # the start of `what` for images and boxes that the copy lacks
_NOT_COPIED = "not in the copy: "  # the same for entries of annotation files that belong to no image

Value = str | Sequence[float] | None


@dataclass(frozen=True)
class Change:
    """One change of an image's record or, with `annotation_id`, of a box (x, y, width, height in pixels).

    `after` is None for an image or box that is left out. Without an `image_id` it is an entry of a file that belongs to no
    image; `before` is then the message of its problem.
    """

    split: str
    file: str
    image_id: int | None
    annotation_id: int | None
    what: str
    before: Value
    after: Value


@dataclass(frozen=True)
class RepairedData:
    """The repaired data set, in the schema, and its changes."""

    data: DatasetDict
    changes: tuple[Change, ...]


def to_json_lines(changes: Iterable[Change]) -> str:
    """Return the changes as JSON, one per line, with NaN and infinite numbers as text."""
    lines = []
    for change in changes:
        fields = asdict(change) | {"before": _to_json(change.before), "after": _to_json(change.after)}
        lines.append(json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def _to_json(value: Value) -> object:
    if value is None or isinstance(value, str):
        return value
    return [number if math.isfinite(number) else str(number) for number in value]


def summarize_changes(changes: Iterable[Change]) -> str:
    """Return each kind of change with its number, the most frequent first."""
    counts = Counter((_noun(change), change.what) for change in changes)
    lines = [f"{noun} {what}: {count}" for (noun, what), count in counts.most_common()]
    return "\n".join(lines) or "no changes were necessary"


def _noun(change: Change) -> str:
    if change.image_id is None:
        return "entry"
    return "image" if change.annotation_id is None else "box"


def entries_not_copied(problems: Iterable[Problem]) -> Iterator[Change]:
    """Yield a change for each problem of entries that belong to no image, whose objects the copy lacks."""
    for problem in problems:
        if problem.row is None and num_unread([replace(problem, count=1)]):
            file = problem.message.partition(":")[0].partition(", line")[0]
            yield Change(problem.split or "", file, None, None, _NOT_COPIED + problem.kind, problem.message, None)


def problem_of_copy(folder: Path) -> Problem | None:
    """Return a note if a folder is a repaired copy that lacks images, or other entries, of its original."""
    try:
        changes = [json.loads(line) for line in read_regular(folder / CHANGE_LOG).decode().splitlines()]
    except (OSError, ValueError, RecursionError):
        return None
    kinds = [
        str(change.get("what"))
        for change in changes
        if isinstance(change, dict) and change.get("annotation_id") is None
    ]
    left_out, not_copied = (
        Counter(kind.removeprefix(start) for kind in kinds if kind.startswith(start))
        for start in (_LEFT_OUT, _NOT_COPIED)
    )
    parts = [
        f"{counts.total()} {what}: {', '.join(f'{count} {reason}' for reason, count in counts.most_common())}"
        for counts, what in (
            (left_out, "images were left out"),
            (not_copied, "entries of the files belonged to no image and are not in this copy"),
        )
        if counts
    ]
    kind: ProblemKind = "lost annotation" if not_copied else "repaired copy"
    return Problem(kind, f"{folder / CHANGE_LOG}: {'; '.join(parts)}", count=0) if parts else None


def balance(data: DatasetDict, repaired: RepairedData, problems: Sequence[Problem] = ()) -> str:
    """Return a sentence with the images and objects of the files, of the copy, and those left out."""
    images, boxes = sum(map(len, data.values())), _count_boxes(data)
    images_left, boxes_left = sum(map(len, repaired.data.values())), _count_boxes(repaired.data)
    unread = num_unread(problems)
    lost = f", and {unread} objects that can't be read" if unread else ""
    return (
        f"{images} images with {boxes + unread} objects in the files = {images_left} images with {boxes_left} in the copy + "
        f"{images - images_left} images and {boxes - boxes_left} boxes left out{lost}"
    )


def left_out_warnings(data: DatasetDict, repaired: RepairedData) -> Iterator[str]:
    """Yield a warning if over a tenth of images or boxes is left out, and for a split without any."""
    reasons = [
        (change, change.what.removeprefix(_LEFT_OUT))
        for change in repaired.changes
        if change.what.startswith(_LEFT_OUT)
    ]
    images = Counter(reason for change, reason in reasons if change.annotation_id is None)
    boxes = Counter(reason for change, reason in reasons if change.annotation_id is not None)
    total = _count_boxes(data)
    boxes["with their images"] = total - _count_boxes(repaired.data) - boxes.total()
    yield from _warning("images", images, sum(map(len, data.values())))
    yield from _warning("boxes", boxes, total)
    for split in data:
        if split not in repaired.data:
            yield f"WARNING: no image of {split} is left: the repaired copy does not have this split"


def _warning(noun: str, reasons: Counter[str], total: int) -> Iterator[str]:
    count = reasons.total()
    if count > _MIN_LEFT_OUT_FRACTION * total:
        text = ", ".join(f"{reason} {number}" for reason, number in reasons.most_common() if number)
        yield f"WARNING: {count} of {total} {noun} ({percent(count / total)}) are left out of the repaired copy: {text}"


def _count_boxes(data: DatasetDict) -> int:
    return sum(len(objects["bbox"]) for rows in data.values() for objects in rows["objects"])
