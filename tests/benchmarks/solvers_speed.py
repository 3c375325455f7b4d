"""Solvers of the assignment problem, microseconds a problem, in turn on the same costs.   python tests/benchmarks/solvers_speed.py

SciPy as the stock loss calls it (queries as rows, a strided slice of the batch's matrix), SciPy as we do (targets as
rows, contiguous), and lapx where it is installed. All must find assignments of the same total cost. Medians over
rounds; one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from tables import Tables, parser_of

from detr_ft.criterion.assignment import by_lapx, by_scipy

PROBLEMS, ROUNDS = 32, 15
SHAPES = [(5, 100), (20, 100), (50, 300), (300, 300)]  # targets, queries
Solver = Callable[[np.ndarray], float]


def stock(costs: np.ndarray) -> float:
    """As in transformers: each image's slice of all queries against all targets."""
    number = len(costs)
    whole = torch.from_numpy(np.ascontiguousarray(costs.transpose(0, 2, 1)))
    total = 0.0
    for index in range(number):
        rows, columns = linear_sum_assignment(whole[index])
        total += float(whole[index][rows, columns].sum())
    return total


def summed(solve: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Solver:
    def work(costs: np.ndarray) -> float:
        rows, columns = solve(costs)
        return float(costs[np.arange(len(costs))[:, None], rows, columns].sum())

    return work


def main() -> None:
    torch.set_num_threads(1)
    tables = Tables(parser_of(__doc__).parse_args().json)
    solvers: dict[str, Solver] = {"SciPy, as stock": stock, "SciPy, targets as rows": summed(by_scipy)}
    if find_spec("lap") is not None:
        solvers["lapx"] = summed(by_lapx)
    tables.begin({"targets x queries": "", **dict.fromkeys(solvers, ".1f")})
    for shape in SHAPES:
        costs = np.random.default_rng(0).normal(size=(PROBLEMS, *shape))
        totals = [solve(costs) for solve in solvers.values()]
        assert np.allclose(totals, totals[0]), totals
        spent: dict[str, list[float]] = {name: [] for name in solvers}
        for _ in range(ROUNDS):
            for name, solve in solvers.items():
                began = time.perf_counter()
                solve(costs)
                spent[name].append(1e6 * (time.perf_counter() - began) / PROBLEMS)
        tables.row(f"{shape[0]} x {shape[1]}", *(statistics.median(times) for times in spent.values()))


if __name__ == "__main__":
    main()
