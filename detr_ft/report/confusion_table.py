"""The confusion matrix as a page shows it: whole where it is small, else its largest entries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detr_ft.evaluation.detection_matching import Ints

_WHOLE = 21  # rows, background among them
_MOST = 20


@dataclass(frozen=True)
class Confused:
    """Rows of the matrix, (name, entries as (count, share of the row)), or the largest mistakes, (true, said, count)."""

    rows: list[tuple[str, list[tuple[int, float]]]]
    mistakes: list[tuple[str, str, int]]


def confused(names: Sequence[str], matrix: Ints) -> Confused:
    """What to show of a matrix `[K+1, K+1]`, whose last row and column are background."""
    every = [*names, "background"]
    if len(every) > _WHOLE:
        worst = sorted(
            (
                (int(matrix[true, said]), every[true], every[said])
                for true in range(len(every))
                for said in range(len(every))
                if true != said and matrix[true, said]
            ),
            reverse=True,
        )
        return Confused([], [(true, said, count) for count, true, said in worst[:_MOST]])
    totals = matrix.sum(1)
    return Confused(
        [
            (name, [(int(count), float(count / max(1, total))) for count in row])
            for name, row, total in zip(every, matrix, totals, strict=True)
        ],
        [],
    )
