"""From costs to matches: every layer and image from one cost tensor that travels to the host once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from detr_ft.criterion.checks import CriterionError, defects, raise_for_defects
from detr_ft.criterion.costs import Cost, total_cost
from detr_ft.criterion.solvers import Solver
from detr_ft.structures import Matches, Predictions, Targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How a layer is matched: the costs that are summed, the solver, and how many queries each target gets."""

    costs: tuple[Cost, ...]
    solver: Solver
    copies: int = 1


@torch.no_grad()
def solve(plans: Sequence[Plan], predictions: Predictions, targets: Targets) -> Matches:
    """The matching of all layers and images, each of the L layers by its plan, from one transfer."""
    # A label out of range is reported below, by name, and must not trip the device first.
    safe = replace(targets, labels=targets.labels.clamp(0, predictions.num_classes - 1))
    blocks = [(plan, len(list(same))) for plan, same in itertools.groupby(plans)]
    costs, start = [], 0
    for plan, layers in blocks:
        costs.append(total_cost(plan.costs, predictions.layers(start, start + layers), safe))
        start += layers
    host = torch.cat([*(cost.flatten() for cost in costs), defects(predictions, targets)]).cpu().numpy()
    raise_for_defects([int(count) for count in host[-4:]], predictions, targets)
    matrices = host[:-4].reshape(predictions.num_layers, len(targets.labels), predictions.num_queries)
    parts, start = [], 0
    for plan, layers in blocks:
        block = matrices[start : start + layers]
        if not np.isfinite(block).all():
            raise CriterionError(_name_bad_cost(plan.costs, predictions, targets))
        pairs = _assign(block, targets.counts, predictions.num_queries, plan)
        parts.append(_as_matches(pairs, targets, layers, plan.copies))
        start += layers
    return parts[0] if len(parts) == 1 else Matches.join(parts)


def _as_matches(pairs: np.ndarray, targets: Targets, layers: int, copies: int) -> Matches:
    """The pairs on the targets' device; with several queries a target, what box losses are divided by grows alike.

    It grows by the number asked for, even where an image has too few queries: what another image got must not matter.
    """
    device = targets.labels.device
    index = torch.from_numpy(pairs).to(device, non_blocking=True)
    num_boxes = torch.full((layers,), targets.num_boxes * copies, device=device)
    return Matches(index[0], index[1], index[2], index[3], num_boxes)


def _assign(matrix: np.ndarray, counts: tuple[int, ...], queries: int, plan: Plan) -> np.ndarray:
    """Rows layer, image, query, target of every pair: `[4, M]`."""
    blocks = [np.zeros((4, 0), dtype=np.int64)]
    ends = np.cumsum(counts)
    for layer in range(matrix.shape[0]):
        for image, (count, end) in enumerate(zip(counts, ends, strict=True)):
            if count == 0:
                continue
            repeats = max(1, min(plan.copies, queries // count))
            rows = matrix[layer, end - count : end]
            target, query = plan.solver(rows if repeats == 1 else np.tile(rows, (repeats, 1)))
            target = end - count + target % count
            blocks.append(np.stack([np.full_like(query, layer), np.full_like(query, image), query, target]))
    surplus = sum(max(0, count - queries) for count in counts)
    if surplus:
        _warn_of_surplus(queries, f"{surplus} of {sum(counts)} targets, up to {max(counts)} an image")
    return np.concatenate(blocks, axis=1)


_warned: set[int] = set()


def _warn_of_surplus(queries: int, what: str) -> None:
    """Say it once for each number of queries: it would come again at every epoch."""
    if queries not in _warned:
        _warned.add(queries)
        logger.warning("a batch has more objects than the model's %d queries: %s, go unmatched", queries, what)


def _name_bad_cost(costs: tuple[Cost, ...], predictions: Predictions, targets: Targets) -> str:
    for cost in costs:
        bad = ~cost(predictions, targets).isfinite()
        if bad.any():
            layer, target, query = bad.nonzero()[0].tolist()
            return (
                f"the cost {cost!r} is NaN or infinite at layer {layer}, target {target} (image "
                f"{int(targets.image[target])} of the batch), query {query}; predictions and targets are finite"
            )
    return "the weighted sum of the costs overflows: lower their weights"
