"""Matching by exhaustive search, for few objects: a reference for the other matchers on a real image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_ft.criterion import CostMatcher
from detr_ft.criterion.assignment import Plan
from detr_ft.criterion.base import Cost

MAX_OBJECTS = 4  # 43,680 assignments to the sixteen queries that can be optimal


@dataclass(frozen=True)
class ExhaustiveMatcher(CostMatcher):
    """The cheapest of all one-to-one matchings of up to four objects, by comparing all of them.

    It suffices to search the T cheapest queries of each of the T objects: instead of a more expensive query, at least one of
    these is free. Raises ValueError for more objects.
    """

    costs: Sequence[Cost]

    @property
    def plan(self) -> Plan:
        """The same for every layer."""
        return Plan(tuple(self.costs), cheapest_assignments)


def cheapest_assignments(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cheapest assignment of each matrix `[N, T, Q]`: rows and columns, `[N, min(T, Q)]` each."""
    pairs = [_cheapest_assignment(matrix.astype(np.float64)) for matrix in costs]
    return np.stack([rows for rows, _ in pairs]), np.stack([columns for _, columns in pairs])


def _cheapest_assignment(costs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    objects, queries = costs.shape
    if objects > queries:  # some objects stay without a query
        query_of_row, object_of_row = _cheapest_assignment(costs.T)
        order = object_of_row.argsort()
        return object_of_row[order], query_of_row[order]
    if objects > MAX_OBJECTS:
        raise ValueError(f"exhaustive search is limited to {MAX_OBJECTS} objects, got {objects}")
    candidates = np.unique(costs.argsort(1)[:, :objects])
    assignments = np.array(list(itertools.permutations(candidates.tolist(), objects)), dtype=np.int64)
    assignments = assignments.reshape(-1, objects)
    rows = np.arange(objects)
    best: NDArray[np.int64] = assignments[costs[rows, assignments].sum(1).argmin()]
    return rows, best
