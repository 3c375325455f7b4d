"""Assignment problems, one at a time: a cost matrix `[T, Q]` to the rows and columns of its pairs, on the host."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

Solver = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def hungarian(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest assignment, by SciPy (Crouse, 2016, a shortest augmenting path). Targets as rows are the fast way round."""
    rows, columns = linear_sum_assignment(costs)
    return rows, columns


def greedy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest pair, then the cheapest of what is left, and so on."""
    left = costs.astype(np.float64)
    pairs = []
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(left.argmin(), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = np.inf, np.inf
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return rows, columns


def brute_force(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest of all assignments, by trying each: some seconds for 7 x 7, and the proof of the others."""
    wide = costs.T if costs.shape[0] > costs.shape[1] else costs
    short = np.arange(wide.shape[0])
    tried = np.array(list(itertools.permutations(range(wide.shape[1]), wide.shape[0])), dtype=np.int64)
    best = tried[wide[short, tried].astype(np.float64).sum(1).argmin()]
    if wide is costs:
        return short, best
    order = best.argsort()
    return best[order], short[order]
