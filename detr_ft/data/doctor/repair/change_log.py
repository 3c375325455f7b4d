"""What a mend changed: one line a change, and their numbers in words."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

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


def as_lines(changes: Iterable[Change]) -> str:
    """The changes as JSON, one a line; NaN and infinite numbers, which JSON doesn't have, as text."""
    lines = []
    for one in changes:
        told = asdict(one) | {"before": _plain(one.before), "after": _plain(one.after)}
        lines.append(json.dumps(told, ensure_ascii=False, allow_nan=False) + "\n")
    return "".join(lines)


def in_words(changes: Iterable[Change]) -> str:
    """What was done, how many times, the most frequent first."""
    counts = Counter(("image" if one.annotation_id is None else "box", one.what) for one in changes)
    told = [f"{noun} {what}: {count}" for (noun, what), count in counts.most_common()]
    return "\n".join(told) or "nothing had to be changed"


def _plain(value: Value) -> object:
    if value is None or isinstance(value, str):
        return value
    return [number if math.isfinite(number) else str(number) for number in value]
