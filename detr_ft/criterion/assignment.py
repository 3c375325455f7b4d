"""Assignment of queries to targets on the host, from one cost tensor of all layers and images."""

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
from detr_ft.criterion.input_checks import CriterionError, defect_signs, raise_for_defects
from detr_ft.structures import Matches, Predictions, Targets

try:
    from lap import lapjvh_batch  # lapx 0.11 or newer; older releases and the package `lap` lack this function
except ImportError:
    lapjvh_batch = None

logger = logging.getLogger(__name__)
_warned_queries: set[int] = set()

# Cost matrices `[N, T, Q]` to the rows and columns of their pairs, twice `[N, min(T, Q)]`, on the host.
Solver = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Plan:
    """The matching of a layer: costs to sum, solver, and the number of queries for each target."""

    costs: tuple[Cost, ...]
    solver: Solver
    copies: int = 1


@torch.no_grad()
def solve(plans: Sequence[Plan], predictions: Predictions, targets: Targets) -> Matches:
    """Match all layers and images, each of the L layers by its plan, with one transfer to the host.

    Raises CriterionError for a value that is NaN, infinite or out of range, and for another number of images.
    """
    if len(targets.counts) != predictions.num_images:
        raise CriterionError(
            f"targets: must have as many images as the predictions, {predictions.num_images}, got {len(targets.counts)}"
        )
    # A label out of range would be an index error of the device; raise_for_defects reports it below.
    clamped = replace(targets, labels=targets.labels.clamp(0, predictions.num_classes - 1))
    blocks = _equal_runs([plan.costs for plan in plans])
    costs = [total_cost(terms, predictions.layers(start, stop), clamped) for terms, start, stop in blocks]
    signs = defect_signs(predictions, targets)
    host = torch.cat([*(cost.transpose(0, 1).flatten() for cost in costs), *signs]).cpu().numpy()
    raise_for_defects(host[sum(cost.numel() for cost in costs) :], predictions, targets)
    matrices, first = [], 0
    for (terms, start, stop), cost in zip(blocks, costs, strict=True):
        block, first = host[first : first + cost.numel()], first + cost.numel()
        if not _is_finite(block):
            raise CriterionError(_bad_cost_message(terms, predictions.layers(start, stop), targets, start))
        matrices.append(block.reshape(-1, stop - start, predictions.num_queries).transpose(1, 0, 2))
    whole = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)  # [L, P, Q]
    parts = [
        _as_matches(_assign(whole[start:stop], targets.counts, plan), targets, stop - start, plan.copies)
        for plan, start, stop in _equal_runs(plans)
    ]
    return parts[0] if len(parts) == 1 else Matches.join(parts)


_T = TypeVar("_T")


def _equal_runs(values: Sequence[_T]) -> list[tuple[_T, int, int]]:
    """Runs of equal values: the value, its first index, and the index after its last."""
    ends = [index + 1 for index, value in enumerate(values) if values[index + 1 : index + 2] != [value]]
    return [(values[end - 1], start, end) for start, end in zip([0, *ends], ends, strict=False)]


def _is_finite(values: np.ndarray) -> bool:
    """Return whether all values are finite, mostly from their sum, which is faster to check."""
    with np.errstate(all="ignore"):
        return math.isfinite(values.sum()) or bool(np.isfinite(values).all())  # a sum of finite values may overflow


def _as_matches(pairs: np.ndarray, targets: Targets, layers: int, copies: int) -> Matches:
    """The pairs on the device of the targets. `num_boxes` is multiplied by `copies`.

    So it is also where an image has fewer queries: the divisor must not depend on the other images of the batch.
    """
    device = targets.labels.device
    layer, image, query, target = torch.from_numpy(pairs).to(device, non_blocking=True).unbind()
    num_boxes = torch.full((layers,), float(copies), device=device) * targets.num_boxes
    return Matches(layer, image, query, target, num_boxes)


def _assign(costs: np.ndarray, counts: tuple[int, ...], plan: Plan) -> np.ndarray:
    """Layer, image, query and target of every pair, `[4, M]`, from the costs `[L, P, Q]`."""
    layers, _, queries = costs.shape
    copies = [max(1, min(plan.copies, queries // max(count, 1))) for count in counts]
    sizes = [min(of_image * count, queries) for of_image, count in zip(copies, counts, strict=True)]
    pairs = np.empty((4, layers, sum(sizes)), dtype=np.int64)
    pairs[0], pairs[1] = np.arange(layers)[:, None], np.repeat(np.arange(len(counts)), sizes)
    first = start = 0
    for count, of_image, size in zip(counts, copies, sizes, strict=True):
        if count:
            rows = costs[:, first : first + count]
            own = slice(start, start + size)
            target, pairs[2, :, own] = plan.solver(rows if of_image == 1 else np.tile(rows, (1, of_image, 1)))
            pairs[3, :, own] = first + target % count
        first, start = first + count, start + size
    surplus = sum(max(0, count - queries) for count in counts)
    if surplus and queries not in _warned_queries:  # once for each number of queries, not at every epoch
        _warned_queries.add(queries)
        logger.warning(
            "a batch has more objects than the %d queries of the model: %d of %d targets stay unmatched, up to %d in an image",
            queries, surplus, sum(counts), max(counts),
        )  # fmt: skip
    return pairs.reshape(4, -1)


def _bad_cost_message(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets, first: int) -> str:
    for cost in costs:
        bad = ~cost(predictions, targets).isfinite()
        if bad.any():
            layer, target, query = bad.nonzero()[0].tolist()
            return (
                f"the cost {cost!r} is NaN or infinite at layer {first + layer}, target {target} (image "
                f"{int(targets.image[target])} of the batch), query {query}. Predictions and targets are finite, so the "
                "cost is wrong there"
            )
    return "the weighted sum of the costs overflows. Reduce their weights"


def hungarian(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The assignments of minimal cost, by lapx where `lapx_is_equal`, else by SciPy.

    Of several assignments with the same cost the two may choose different ones.
    """
    return by_lapx(costs) if lapx_is_equal() else by_scipy(costs)


def by_scipy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The assignments of minimal cost by shortest augmenting paths (Crouse, 2016)."""
    # SciPy is faster with fewer rows than columns, that is with targets as rows.
    return _each(linear_sum_assignment, costs.astype(np.float64, order="C"))


def by_lapx(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The assignments of minimal cost by the batch solver of lapx (Jonker and Volgenant, 1987)."""
    # One thread, because starting a thread pool takes longer than solving problems of this size.
    rows, columns = lapjvh_batch(costs.astype(np.float64, order="C"), extend_cost=True, return_cost=False, n_threads=1)
    return np.stack(rows), np.stack(columns)


@cache
def lapx_is_equal() -> bool:
    """Return whether lapx is installed and its assignments cost as much as those of SciPy."""
    if lapjvh_batch is None:
        return False
    generator = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (7, 100), (50, 300), (40, 40), (12, 5)]
    problems = [generator.normal(size=(4, *shape)) for shape in shapes]
    problems += [problem.round() for problem in problems]  # many ties
    return all(np.allclose(_totals(by_lapx, costs), _totals(by_scipy, costs), rtol=1e-12) for costs in problems)


def _totals(solve: Solver, costs: np.ndarray) -> np.ndarray:
    rows, columns = solve(costs)
    whole: np.ndarray = costs[np.arange(len(costs))[:, None], rows, columns].sum(1)
    return whole


def greedy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cheapest pair, then the cheapest pair of the remaining rows and columns, and so on."""
    return _each(_greedy, costs)


def _each(solve: Solver, costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pairs = np.empty((2, len(costs), min(costs.shape[1:])), dtype=np.int64)
    for index, matrix in enumerate(costs):
        pairs[0, index], pairs[1, index] = solve(matrix)
    return pairs[0], pairs[1]


def _greedy(costs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    remaining = costs.astype(np.float64)
    pairs = []
    for _ in range(min(remaining.shape)):
        row, column = np.unravel_index(remaining.argmin(), remaining.shape)
        pairs.append((int(row), int(column)))
        remaining[row], remaining[:, column] = np.inf, np.inf
    rows, columns = np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2).T
    return rows, columns
