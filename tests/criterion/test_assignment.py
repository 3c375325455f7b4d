from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.brute_force import brute_force

from detr_ft.criterion import assignment
from detr_ft.criterion.assignment import Solver, by_lapx, by_scipy, greedy, hungarian, lapx_is_equal


@settings(deadline=None, max_examples=150)
@given(rows=st.integers(1, 7), columns=st.integers(1, 7), seed=st.integers(0, 10_000), ties=st.booleans())
def test_hungarian_costs_as_much_as_brute_force(rows: int, columns: int, seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    shape = (3, rows, columns)
    costs = random.integers(0, 3, shape) * 1.0 if ties else random.normal(size=shape)
    totals = []
    for solver in (brute_force, hungarian, by_scipy, greedy):
        row, column = solver(costs)
        assert row.shape == column.shape == (3, min(rows, columns))
        for index in range(3):
            assert len(set(row[index].tolist())) == len(set(column[index].tolist())) == min(rows, columns)
            assert row[index].tolist() == sorted(row[index].tolist())
        totals.append(costs[np.arange(3)[:, None], row, column].sum(1))
    np.testing.assert_allclose(totals[1], totals[0])
    np.testing.assert_allclose(totals[2], totals[0])
    assert (totals[3] >= totals[0] - 1e-9).all()


@pytest.mark.parametrize("solver", [hungarian, brute_force])
def test_greedy_costs_more_than_hungarian(solver: Solver) -> None:
    costs = np.array([[[1.0, 2.0], [2.0, 9.0]]])
    problem = np.zeros((1, 1), dtype=int)
    assert costs[(problem, *greedy(costs))].sum() == 10
    assert costs[(problem, *solver(costs))].sum() == 4


def stand_in(monkeypatch: pytest.MonkeyPatch, solve: Solver | None) -> None:
    """Replace the batch solver of lapx by one that computes with `solve`, or by none."""
    batch = solve and (lambda costs, **_: tuple(map(list, solve(costs))))
    monkeypatch.setattr(assignment, "lapjvh_batch", batch)
    lapx_is_equal.cache_clear()


@pytest.fixture(autouse=True)
def _forget() -> object:
    yield
    lapx_is_equal.cache_clear()


def test_lapx_is_used_where_it_is_installed_and_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []
    stand_in(monkeypatch, lambda costs: (used.append(len(costs)), by_scipy(costs))[1])  # type: ignore[func-returns-value]
    assert lapx_is_equal()
    used.clear()
    hungarian(np.eye(3)[None])
    assert used == [1]


@pytest.mark.parametrize("solve", [None, greedy])
def test_no_solver_or_a_worse_one_is_not_used(monkeypatch: pytest.MonkeyPatch, solve: Solver | None) -> None:
    stand_in(monkeypatch, solve)
    assert not lapx_is_equal()
    _, column = hungarian(np.array([[[1.0, 2.0], [2.0, 9.0]]]))
    assert column.tolist() == [[1, 0]]


@pytest.mark.parametrize("module", [None, ModuleType("lap")], ids=["not installed", "another package"])
def test_modules_without_the_batch_solver_are_left_out(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lap", module)
    spec = importlib.util.spec_from_file_location("assignment_without_lapx", assignment.__file__)
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, copy)
    spec.loader.exec_module(copy)
    assert copy.lapjvh_batch is None
    assert not copy.lapx_is_equal()


def test_the_real_lapx_is_equal() -> None:
    if assignment.lapjvh_batch is None:
        pytest.skip("lapx is not installed")
    assert lapx_is_equal()
    costs = np.random.default_rng(1).normal(size=(5, 30, 90))
    np.testing.assert_allclose(assignment._totals(by_lapx, costs), assignment._totals(by_scipy, costs), rtol=1e-12)
