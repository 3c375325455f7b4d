"""Assignment problems: cost matrices `[N, T, Q]` to the rows and columns of their pairs, twice `[N, min(T, Q)]`, on the host."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.optimize import linear_sum_assignment

MOST_TRIED = 7  # queries: 5,040 orders

Solver = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def hungarian(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest assignments: by SciPy, or by lapx where that is installed and has proved equal.

    Where several assignments cost exactly the same, the two may choose differently.
    """
    return by_lapx(costs) if lapx_is_equal() else by_scipy(costs)


def by_scipy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest assignments (Crouse, 2016, a shortest augmenting path). Targets as rows are the fast way round."""
    return _one_by_one(linear_sum_assignment, costs.astype(np.float64, order="C"))


def by_lapx(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest assignments by lapx's batch solver (Jonker and Volgenant, 1987), of release 0.11 or newer."""
    from lap import lapjvh_batch

    # One thread: a pool for each call costs more than such small problems do.
    rows, columns = lapjvh_batch(costs.astype(np.float64, order="C"), extend_cost=True, return_cost=False, n_threads=1)
    return np.stack(rows), np.stack(columns)


@cache
def lapx_is_equal() -> bool:
    """Whether lapx is installed and its assignments are as cheap as SciPy's on problems of many shapes, ties among them."""
    try:
        from lap import lapjvh_batch  # noqa: F401 - older releases, and the package `lap`, have the module without it
    except ImportError:
        return False
    generator = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (7, 100), (50, 300), (40, 40), (12, 5)]
    problems = [generator.normal(size=(4, *shape)) for shape in shapes]
    problems += [problem.round() for problem in problems]  # many ties
    return all(np.allclose(_totals(by_lapx, one), _totals(by_scipy, one), rtol=1e-12) for one in problems)


def _totals(solve: Solver, costs: np.ndarray) -> np.ndarray:
    rows, columns = solve(costs)
    whole: np.ndarray = costs[np.arange(len(costs))[:, None], rows, columns].sum(1)
    return whole


def greedy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest pair, then the cheapest of what is left, and so on."""
    return _one_by_one(_greedy, costs)


def brute_force(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest of all assignments, by trying each: some seconds for 7 x 7, and the proof of the others."""
    return _one_by_one(_brute_force, costs)


def _one_by_one(solve: Solver, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.empty((2, len(costs), min(costs.shape[1:])), dtype=np.int64)
    for index, matrix in enumerate(costs):
        pairs[0, index], pairs[1, index] = solve(matrix)
    return pairs[0], pairs[1]


def _greedy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    left = costs.astype(np.float64)
    pairs = []
    for _ in range(min(left.shape)):
        row, column = np.unravel_index(left.argmin(), left.shape)
        pairs.append((int(row), int(column)))
        left[row], left[:, column] = np.inf, np.inf
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return rows, columns


def _brute_force(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if max(costs.shape) > MOST_TRIED:
        raise ValueError(
            f"brute force tries all orders of up to {MOST_TRIED} queries or targets, not {max(costs.shape)}"
        )
    wide = costs.T if costs.shape[0] > costs.shape[1] else costs
    short = np.arange(wide.shape[0])
    tried = np.array(list(itertools.permutations(range(wide.shape[1]), wide.shape[0])), dtype=np.int64)
    best = tried[wide[short, tried].astype(np.float64).sum(1).argmin()]
    if wide is costs:
        return short, best
    order = best.argsort()
    return best[order], short[order]
