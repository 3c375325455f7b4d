"""COCO's twelve figures, from precision and recall of every threshold and class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from detr_ft.evaluation.detection_matching import AREAS, MOST, THRESHOLDS, Floats

LIMITS = (1, 10, MOST)  # of detections of a class in an image
Value = TypeVar("Value")


@dataclass(frozen=True, eq=False)
class Table:
    """Precision `[T, ...]` and, by limit, recall `[T, ...]`: of the ten thresholds, and of the classes behind them."""

    precision: Floats
    recall: Mapping[int, Floats]


def summarise(tables: Mapping[str, Table], mean: Callable[[Floats], Value]) -> dict[str, Value]:
    """`COCO_METRICS` by name, from a table for each of `AREAS`, and the mean to take of its values."""
    whole, sizes = tables["all"], [area for area in AREAS if area != "all"]
    at_75 = int(np.argmin(np.abs(THRESHOLDS - 0.75)))
    figures = {
        "map": mean(whole.precision),
        "map_50": mean(whole.precision[:1]),
        "map_75": mean(whole.precision[at_75 : at_75 + 1]),
    }
    figures |= {f"map_{size}": mean(tables[size].precision) for size in sizes}
    figures |= {f"mar_{limit}": mean(whole.recall[limit]) for limit in LIMITS}
    return figures | {f"mar_{size}": mean(tables[size].recall[MOST]) for size in sizes}
