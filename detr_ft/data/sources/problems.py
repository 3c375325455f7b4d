"""Problems of annotation files: what could not be used as it is written, and lines that summarize it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from detr_ft.errors import InputError

UNKNOWN_CATEGORY = -1  # `datasets` writes a missing label like this

ProblemKind = Literal[
    "unreadable annotation",
    "unknown class",
    "missing label",
    "lost annotation",
    "no split",
    "repeated id",
    "repeated image",
    "contradiction",
    "unlabeled",
    "shape without area",
    "unclear rows",
    "repaired copy",
]
# An image with such a problem would be learned as if objects in it were not there. Training refuses it.
REFUSED: frozenset[ProblemKind] = frozenset({"unreadable annotation", "unknown class", "missing label"})

_MAX_LINE_CHARS = 1500


@dataclass(frozen=True)
class Problem:
    """Something in annotation files that could not be used as it is written.

    `message` begins with the file and the position in it; `cause` is the same for all problems of one cause, by default
    the message without position, numbers and quoted values. `split` and `row` are those of the image, `place` is the
    index of the object among those of the image that were read; None if there is no such image or object. `count` is the
    number of objects that the problem stands for.
    """

    kind: ProblemKind
    message: str
    cause: str = ""
    split: str | None = None
    row: int | None = None
    place: int | None = None
    count: int = 1

    @property
    def refused(self) -> bool:
        """True for a problem that training refuses."""
        return self.kind in REFUSED


def num_unread(problems: Iterable[Problem]) -> int:
    """Return the number of objects in the files that are not among those that were read."""
    kinds: tuple[ProblemKind, ...] = ("unreadable annotation", "lost annotation", "no split", "shape without area")
    return sum(problem.count for problem in problems if problem.kind in kinds)


def raise_all(problems: Sequence[str], limit: int = 50) -> None:
    """Raise one InputError with a summary of the problems, if there are any."""
    if problems:
        raise InputError(summarize(problems, limit))


def summarize(problems: Sequence[str], limit: int = 50) -> list[str]:
    """Return the lines of an error: the first three problems of each kind and a count of the others.

    After `limit` lines, the last line has the number of the remaining problems.
    """
    lines = group_problems(problems)
    rest = len(problems) - sum(count for _, count in lines[:limit])
    more = [f"... and {rest} more problems"] if len(lines) > limit else []
    return [*(line for line, _ in lines[:limit]), *more]


def group_problems(problems: Sequence[str], max_per_kind: int = 3) -> list[tuple[str, int]]:
    """Return lines in the order of the problems, each with the number of problems that it stands for.

    After the first ones of a kind, one line counts the rest of it.
    """
    patterns = [pattern_of(problem) for problem in problems]
    total, counts = Counter(patterns), Counter[str]()
    lines: list[tuple[str, int]] = []
    for problem, pattern in zip(problems, patterns, strict=True):
        counts[pattern] += 1
        if counts[pattern] <= max_per_kind:
            line = problem if len(problem) <= _MAX_LINE_CHARS else f"{problem[:_MAX_LINE_CHARS]} ..."
            lines.append((line, 1))
        rest = total[pattern] - max_per_kind
        if counts[pattern] == max_per_kind and rest > 0:
            lines.append((f"... and {rest} more like the one above", rest))
    return lines


def pattern_of(problem: str) -> str:
    """Return a problem without position, numbers and quoted values: equal for all problems of a kind."""
    message = problem.partition(": ")[2] or problem
    words = re.sub(r"(?<!\w)'.*?'(?!\w)", "", message).split()
    return " ".join(word for word in words if re.fullmatch(r"[A-Za-z'-]+[,;:.]?", word))
