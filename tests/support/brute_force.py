"""Exhaustive matching for up to 7 queries and targets, the reference of the solvers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detr_ft.criterion import CostMatcher
from detr_ft.criterion.assignment import Plan
from detr_ft.criterion.base import Cost
from detr_ft.criterion.matchers import DETR_COSTS

_MAX_QUERIES = 7  # 5,040 permutations


@dataclass(frozen=True)
class BruteForceMatcher(CostMatcher):
    """The cheapest of all one-to-one matchings. Raises ValueError for more than 7 queries or targets."""

    costs: Sequence[Cost] = DETR_COSTS

    @property
    def plan(self) -> Plan:
        return Plan(tuple(self.costs), brute_force)


def brute_force(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the assignment of minimal cost of each matrix, by comparing all of them."""
    pairs = [_brute_force(matrix) for matrix in costs]
    return np.stack([rows for rows, _ in pairs]), np.stack([columns for _, columns in pairs])


def _brute_force(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if max(costs.shape) > _MAX_QUERIES:
        raise ValueError(f"brute force is limited to {_MAX_QUERIES} queries or targets, got {max(costs.shape)}")
    wide = costs.T if costs.shape[0] > costs.shape[1] else costs
    short = np.arange(wide.shape[0])
    permutations = np.array(list(itertools.permutations(range(wide.shape[1]), wide.shape[0])), dtype=np.int64)
    best = permutations[wide[short, permutations].astype(np.float64).sum(1).argmin()]
    if wide is costs:
        return short, best
    order = best.argsort()
    return best[order], short[order]
