"""From costs to matches: every layer and image from one cost tensor that travels to the host once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeVar

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from detr_ft.criterion.base import Cost
from detr_ft.criterion.costs import total_cost
from detr_ft.criterion.input_checks import CriterionError, raise_for_defects, vital_signs
from detr_ft.structures import Matches, Predictions, Targets

try:
    from lap import lapjvh_batch  # of lapx 0.11 or newer: older releases, and the package `lap`, have no such function
except ImportError:
    lapjvh_batch = None

logger = logging.getLogger(__name__)

# Cost matrices `[N, T, Q]` to the rows and columns of their pairs, twice `[N, min(T, Q)]`, on the host.
Solver = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Plan:
    """How a layer is matched: the costs that are summed, the solver, and how many queries each target gets."""

    costs: tuple[Cost, ...]
    solver: Solver
    copies: int = 1


@torch.no_grad()
def solve(plans: Sequence[Plan], predictions: Predictions, targets: Targets) -> Matches:
    """The matching of all layers and images, each of the L layers by its plan, from one transfer."""
    if len(targets.counts) != predictions.num_images:
        raise CriterionError(
            f"{predictions.num_images} images were predicted, and targets are of {len(targets.counts)}"
        )
    # A label out of range is reported below, by name, and must not trip the device first.
    safe = replace(targets, labels=targets.labels.clamp(0, predictions.num_classes - 1))
    blocks = _equal_runs([plan.costs for plan in plans])
    costs = [total_cost(terms, predictions.layers(start, stop), safe) for terms, start, stop in blocks]
    signs = vital_signs(predictions, targets)
    host = torch.cat([*(cost.transpose(0, 1).flatten() for cost in costs), *signs]).cpu().numpy()
    raise_for_defects(host[sum(cost.numel() for cost in costs) :], predictions, targets)
    matrices, first = [], 0
    for (terms, start, stop), cost in zip(blocks, costs, strict=True):
        block, first = host[first : first + cost.numel()], first + cost.numel()
        if not _is_finite(block):
            raise CriterionError(_name_bad_cost(terms, predictions.layers(start, stop), targets, start))
        matrices.append(block.reshape(-1, stop - start, predictions.num_queries).transpose(1, 0, 2))
    whole = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)  # [L, P, Q]
    parts = [
        _as_matches(_assign(whole[start:stop], targets.counts, plan), targets, stop - start, plan.copies)
        for plan, start, stop in _equal_runs(plans)
    ]
    return parts[0] if len(parts) == 1 else Matches.join(parts)


_T = TypeVar("_T")


def _equal_runs(values: Sequence[_T]) -> list[tuple[_T, int, int]]:
    """Runs of equal values: each value, where it starts, and where it ends."""
    ends = [index + 1 for index, value in enumerate(values) if values[index + 1 : index + 2] != [value]]
    return [(values[end - 1], start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _is_finite(values: np.ndarray) -> bool:
    """Whether all are; first by their sum, which is quick, and finite unless one of them isn't or it overflows."""
    with np.errstate(all="ignore"):
        return math.isfinite(values.sum()) or bool(np.isfinite(values).all())


def _as_matches(pairs: np.ndarray, targets: Targets, layers: int, copies: int) -> Matches:
    """The pairs on the targets' device; with several queries a target, what box losses are divided by grows alike.

    It grows by the number asked for, even where an image has too few queries: what another image got must not matter.
    """
    device = targets.labels.device
    layer, image, query, target = torch.from_numpy(pairs).to(device, non_blocking=True).unbind()
    num_boxes = torch.full((layers,), float(copies), device=device) * targets.num_boxes
    return Matches(layer, image, query, target, num_boxes)


def _assign(costs: np.ndarray, counts: tuple[int, ...], plan: Plan) -> np.ndarray:
    """Rows layer, image, query, target of every pair, `[4, M]`, from the costs `[L, P, Q]`."""
    layers, _, queries = costs.shape
    repeats = [max(1, min(plan.copies, queries // max(count, 1))) for count in counts]
    sizes = [min(many * count, queries) for many, count in zip(repeats, counts, strict=True)]
    pairs = np.empty((4, layers, sum(sizes)), dtype=np.int64)
    pairs[0], pairs[1] = np.arange(layers)[:, None], np.repeat(np.arange(len(counts)), sizes)
    first = start = 0
    for count, many, size in zip(counts, repeats, sizes, strict=True):
        if count:
            rows = costs[:, first : first + count]
            place = slice(start, start + size)
            target, pairs[2, :, place] = plan.solver(rows if many == 1 else np.tile(rows, (1, many, 1)))
            pairs[3, :, place] = first + target % count
        first, start = first + count, start + size
    surplus = sum(max(0, count - queries) for count in counts)
    if surplus:
        _warn_of_surplus(queries, f"{surplus} of {sum(counts)} targets, up to {max(counts)} an image")
    return pairs.reshape(4, -1)


_warned: set[int] = set()


def _warn_of_surplus(queries: int, what: str) -> None:
    """Say it once for each number of queries: it would come again at every epoch."""
    if queries not in _warned:
        _warned.add(queries)
        logger.warning("a batch has more objects than the model's %d queries: %s, go unmatched", queries, what)


def _name_bad_cost(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets, first: int) -> str:
    for cost in costs:
        bad = ~cost(predictions, targets).isfinite()
        if bad.any():
            layer, target, query = bad.nonzero()[0].tolist()
            return (
                f"the cost {cost!r} is NaN or infinite at layer {first + layer}, target {target} (image "
                f"{int(targets.image[target])} of the batch), query {query}; predictions and targets are finite"
            )
    return "the weighted sum of the costs overflows: lower their weights"


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
    # One thread: a pool for each call costs more than such small problems do.
    rows, columns = lapjvh_batch(costs.astype(np.float64, order="C"), extend_cost=True, return_cost=False, n_threads=1)
    return np.stack(rows), np.stack(columns)


@cache
def lapx_is_equal() -> bool:
    """Whether lapx is installed and its assignments are as cheap as SciPy's on problems of many shapes, ties among them."""
    if lapjvh_batch is None:
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
