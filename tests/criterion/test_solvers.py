from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detr_ft.criterion.solvers import Solver, brute_force, greedy, hungarian


@settings(deadline=None, max_examples=150)
@given(rows=st.integers(0, 7), columns=st.integers(1, 7), seed=st.integers(0, 10_000), ties=st.booleans())
def test_hungarian_is_brute_force(rows: int, columns: int, seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    costs = random.integers(0, 3, (rows, columns)) * 1.0 if ties else random.normal(size=(rows, columns))
    totals = []
    for solver in (hungarian, brute_force, greedy):
        row, column = solver(costs)
        assert len(set(row.tolist())) == len(set(column.tolist())) == min(rows, columns) == len(row)
        assert row.tolist() == sorted(row.tolist())
        totals.append(costs[row, column].sum())
    assert totals[0] == pytest.approx(totals[1])
    assert totals[2] >= totals[1] - 1e-9


@pytest.mark.parametrize("solver", [hungarian, brute_force])
def test_what_greed_misses(solver: Solver) -> None:
    costs = np.array([[1.0, 2.0], [2.0, 9.0]])
    assert costs[greedy(costs)].sum() == 10
    assert costs[solver(costs)].sum() == 4
