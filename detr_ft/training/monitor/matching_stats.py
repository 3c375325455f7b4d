"""How the matching fares in a step: what the loss alone doesn't say, as figures for the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
import torch.distributed as distributed

from detr_ft.boxes import iou
from detr_ft.criterion import SetCriterion
from detr_ft.criterion.explain import regrets
from detr_ft.structures import Matches, Predictions, Targets

Tally = dict[str, tuple[float, float]]  # of each figure a sum, and over how many

_SQUARE = "gradient_square_"
_BORDER = 1e-4  # of a box's fractions: their logits stay finite


def tally(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> Tally:
    """Sums and counts of a batch. The figures are of the last layer, but for `changed_between_layers`.

    `class_accuracy`: matched queries whose likeliest class, no-object among them, is the target's (DETR's `class_error`).
    `matched_iou`: of matched boxes. `left_out`: targets without a query. `no_object_share`: queries whose likeliest class
    is no-object. `changed_between_layers`: pairs that the layer before didn't have. `regret`: how much dearer the best
    assignment without a pair is, for a matcher with costs; near 0 the matching is a toss-up. `gradient_square_NAME`: of
    each weighted loss the squared norm of its gradient at the heads' outputs (logits, and boxes before the sigmoid), all
    layers; `figures` makes of them each one's share.
    """
    matches = criterion.matcher(predictions, targets)
    last = matches.layer == predictions.num_layers - 1
    said = predictions.most_probable[-1]  # [B, Q]
    right = said[matches.image, matches.query][last] == targets.labels[matches.target[last]]
    boxes = predictions.boxes[-1][matches.image, matches.query][last]
    overlap = iou(boxes, targets.boxes[matches.target[last]].to(boxes))
    targets_in_all = len(targets.labels)
    found = len(matches.target[last].unique())
    regretted = regrets(criterion, predictions, targets)
    return {
        "class_accuracy": (float(right.sum()), len(right)),
        "matched_iou": (float(overlap.sum()), len(overlap)),
        "left_out": (targets_in_all - found, targets_in_all),
        "no_object_share": (float((said == predictions.num_classes).sum()), said.numel()),
        "changed_between_layers": _changed(matches, predictions.num_queries, targets_in_all),
        "regret": (sum(regretted), len(regretted)),
        **{f"{_SQUARE}{name}": (value, 1) for name, value in _squares(criterion, predictions, targets, matches).items()},
    }  # fmt: skip


def figures(tallies: Iterable[Mapping[str, tuple[float, float]]], processes: int) -> dict[str, float]:
    """The figures of all tallies of all processes; of which nothing was counted, none. All call it equally often."""
    held: dict[str, list[float]] = {}
    for one in tallies:
        for name, (value, count) in one.items():
            total = held.setdefault(name, [0.0, 0.0])
            total[0], total[1] = total[0] + value, total[1] + count
    if processes > 1:
        held = _over_processes(held)
    squares = {name: held.pop(name)[0] for name in [*held] if name.startswith(_SQUARE)}
    shown = {name: round(value / count, 4) for name, (value, count) in sorted(held.items()) if count}
    return shown | _shares({name.removeprefix(_SQUARE): square for name, square in sorted(squares.items())})


def _changed(matches: Matches, queries: int, targets: int) -> tuple[float, float]:
    """How many pairs of a layer the one before doesn't have, of how many, from the second layer on."""
    a_layer = targets * queries
    pairs = matches.layer * a_layer + matches.target * queries + matches.query
    later = pairs[matches.layer > 0]
    return float((~torch.isin(later - a_layer, pairs)).sum()), len(later)


def _squares(criterion: SetCriterion, predictions: Predictions, targets: Targets, matches: Matches) -> dict[str, float]:
    """The squared norm of each weighted loss's gradient. It adds up over batches of a step, which have no query in common."""
    with torch.enable_grad():
        logits = predictions.logits.detach().float().requires_grad_()
        before = predictions.boxes.detach().float().logit(_BORDER).requires_grad_()
        again = replace(predictions, logits=logits, boxes=before.sigmoid())
        squares = {}
        for loss in criterion.losses:
            value = loss.weight * loss(again, targets, matches).sum() if loss.weight else logits.new_zeros(())
            if not value.requires_grad:
                continue
            parts = torch.autograd.grad(value, (logits, before), retain_graph=True, allow_unused=True)
            squares[loss.name] = sum(float(one.square().sum()) for one in parts if one is not None)
    return squares


def _shares(squares: Mapping[str, float]) -> dict[str, float]:
    """The norm of each gradient among the sum of the norms."""
    norms = {name: square**0.5 for name, square in squares.items()}
    total = sum(norms.values())
    return {f"gradient_share_{name}": round(norm / total, 4) for name, norm in norms.items()} if total else {}


def _over_processes(held: Mapping[str, list[float]]) -> dict[str, list[float]]:
    """The sums of all processes: one may lack a figure that another has."""
    gathered: list[dict[str, list[float]]] = [{} for _ in range(distributed.get_world_size())]
    distributed.all_gather_object(gathered, dict(held))
    names = {name for one in gathered for name in one}
    return {name: [sum(one.get(name, [0.0, 0.0])[part] for one in gathered) for part in (0, 1)] for name in names}
