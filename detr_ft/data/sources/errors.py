"""Problems of a data set, grouped by kind, and the error of undeclared classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from datasets import DatasetDict

from detr_ft.errors import InputError

UNKNOWN_CATEGORY = -1  # `datasets` writes a missing label like this

_MAX_LINE_CHARS = 1500

ObjectKey = tuple[str, int, int]  # split, row of the image, index of the object in the image


class UnknownClassError(InputError):
    """A data set with objects whose classes it does not declare. It was read otherwise.

    These objects have the category -1 in `data`; `faults` has the position and the stated class of each.
    """

    def __init__(self, data: DatasetDict, faults: Mapping[ObjectKey, str]) -> None:
        self.data, self.faults = data, dict(faults)
        super().__init__(summarize(list(faults.values())))


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
    patterns = [_pattern(problem) for problem in problems]
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


def _pattern(problem: str) -> str:
    """Return a problem without position, numbers and quoted values: equal for all problems of a kind."""
    message = problem.partition(": ")[2] or problem
    words = re.sub(r"(?<!\w)'.*?'(?!\w)", "", message).split()
    return " ".join(word for word in words if re.fullmatch(r"[A-Za-z'-]+[,;:.]?", word))
