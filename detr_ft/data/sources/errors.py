"""Objects whose class is none of the data set's: whoever trains gets an error, and the doctor goes on and reports them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from datasets import DatasetDict

from detr_ft.errors import InputError

UNKNOWN = -1  # the category of such an object, as `datasets` writes what has no label

_LONGEST = 1500  # letters of a line

Place = tuple[str, int, int]  # an object: its split, the image's row, its place among the image's objects


class UnknownClassError(InputError):
    """The data set was read, but for the classes of some objects, which are none of its own.

    In `data` these have the category -1; `faults` says of each where it stands and which class it states.
    """

    def __init__(self, data: DatasetDict, faults: Mapping[Place, str]) -> None:
        self.data, self.faults = data, dict(faults)
        super().__init__(told(list(faults.values())))


def raise_all(problems: Sequence[str], limit: int = 50) -> None:
    """Raise one error with the problems as they are `told`, if there are any."""
    if problems:
        raise InputError(told(problems, limit))


def told(problems: Sequence[str], limit: int = 50) -> list[str]:
    """The lines of an error: of each kind the first three are named and the others counted.

    Beyond `limit` lines only the number is told.
    """
    lines = grouped(problems)
    rest = len(problems) - sum(number for _, number in lines[:limit])
    more = [f"... and {rest} more problems"] if len(lines) > limit else []
    return [*(line for line, _ in lines[:limit]), *more]


def grouped(problems: Sequence[str], named: int = 3) -> list[tuple[str, int]]:
    """Lines in the order of the problems, each with how many it tells of: the first ones of a kind, then their rest."""
    kinds = [_kind(problem) for problem in problems]
    total, seen = Counter(kinds), Counter[str]()
    lines: list[tuple[str, int]] = []
    for problem, kind in zip(problems, kinds, strict=True):
        seen[kind] += 1
        if seen[kind] <= named:
            lines.append((problem if len(problem) <= _LONGEST else f"{problem[:_LONGEST]} ...", 1))
        rest = total[kind] - named
        if seen[kind] == named and rest > 0:
            lines.append((f"... and {rest} more like the one above", rest))
    return lines


def _kind(problem: str) -> str:
    """What is left of a problem without place, numbers and quoted values: the same for all of a kind."""
    message = problem.partition(": ")[2] or problem
    words = re.sub(r"(?<!\w)'.*?'(?!\w)", "", message).split()
    return " ".join(word for word in words if re.fullmatch(r"[A-Za-z'-]+[,;:.]?", word))
