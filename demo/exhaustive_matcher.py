"""Matching by trying every order, for as long as there are few: the proof of the others, on a real image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detr_ft.criterion import CostMatcher
from detr_ft.criterion.assignment import Plan
from detr_ft.criterion.base import Cost

MOST = 4  # objects: up to 43,680 orders of the sixteen queries that can matter


@dataclass(frozen=True)
class TryingMatcher(CostMatcher):
    """The cheapest of all one-to-one matchings of up to four objects, found by trying each.

    A best one lies among each object's T cheapest queries: with a dearer one, one of these T would be free, and cheaper.
    """

    costs: Sequence[Cost]

    @property
    def plan(self) -> Plan:
        """Every layer alike."""
        return Plan(tuple(self.costs), _cheapest)


def _cheapest(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = [_of_one(matrix.astype(np.float64)) for matrix in costs]
    return np.stack([rows for rows, _ in pairs]), np.stack([columns for _, columns in pairs])


def _of_one(costs: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    objects, queries = costs.shape
    if objects > queries:  # some objects get none: every order of them for the queries
        of_queries, of_objects = _of_one(costs.T)
        order = of_objects.argsort()
        return of_objects[order], of_queries[order]
    if objects > MOST:
        raise ValueError(f"all orders of {objects} objects are too many to try: {MOST} at most")
    likely = np.unique(costs.argsort(1)[:, :objects])
    orders = np.array(list(itertools.permutations(likely.tolist(), objects)), dtype=np.int64).reshape(-1, objects)
    rows = np.arange(objects)
    best: NDArray[np.int64] = orders[costs[rows, orders].sum(1).argmin()]
    return rows, best
