"""The criterion beside RF-DETR's, on the same problems, forward and backward.   python tests/benchmarks/rfdetr_speed.py

In an environment that has both, since RF-DETR needs torchvision: `python -m venv both; both/bin/pip install rfdetr scipy .`.
Theirs scores by sigmoid, as RF-DETR trains but for its groups of queries; ours once with the same focal
terms, once with DETR's own. Where torch-linear-assignment is installed theirs uses it, on a GPU. In turn, in one
process; medians, and the median of the ratios.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from clocks import seconds
from criterion_speed import CASES, CLASSES, LAYERS, Case, inputs
from tables import Tables, parser_of

from detr_ft.criterion import (
    BoxL1Cost,
    BoxL1Loss,
    GIoUCost,
    GIoULoss,
    HungarianMatcher,
    SetCriterion,
    SoftmaxFocalCost,
    SoftmaxFocalLoss,
    detr_criterion,
)
from detr_ft.structures import Predictions, Targets

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FOCAL = SetCriterion(
    HungarianMatcher([SoftmaxFocalCost(weight=2), BoxL1Cost(weight=5), GIoUCost(weight=2)]),
    [SoftmaxFocalLoss(weight=1), BoxL1Loss(weight=5), GIoULoss(weight=2)],
)
WEIGHTS = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}


def theirs() -> Callable[..., torch.Tensor]:
    """RF-DETR's criterion of all layers."""
    from rfdetr.models.criterion import SetCriterion as Their
    from rfdetr.models.matcher import HungarianMatcher as TheirMatcher

    weights = WEIGHTS | {f"{name}_{layer}": value for layer in range(LAYERS - 1) for name, value in WEIGHTS.items()}
    matcher = TheirMatcher(cost_class=2, cost_bbox=5, cost_giou=2)
    criterion: Any = Their(CLASSES, matcher, weights, 0.25, ["labels", "boxes", "cardinality"], ia_bce_loss=True)

    def loss(logits: torch.Tensor, boxes: torch.Tensor, labels: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        layers = [{"pred_logits": a[..., :CLASSES], "pred_boxes": b} for a, b in zip(logits, boxes, strict=True)]
        targets = [{"labels": one["class_labels"], "boxes": one["boxes"]} for one in labels]
        terms = criterion({**layers[-1], "aux_outputs": layers[:-1]}, targets)
        return sum((terms[name] * weight for name, weight in weights.items()), torch.zeros((), device=logits.device))

    return loss


def by(criterion: SetCriterion) -> Callable[..., torch.Tensor]:
    def loss(logits: torch.Tensor, boxes: torch.Tensor, labels: list[dict[str, torch.Tensor]]) -> torch.Tensor:
        return criterion(Predictions(logits, boxes), Targets.from_labels(labels, logits.device))[0]

    return loss


def once(loss: Callable[..., torch.Tensor], case: Case) -> Callable[[], float]:
    """A function that takes one forward and backward and returns its seconds."""
    logits, boxes, labels = inputs(case)
    logits, boxes = (one.detach().to(DEVICE).requires_grad_() for one in (logits, boxes))
    labels = [{name: value.to(DEVICE) for name, value in one.items()} for one in labels]

    def run() -> float:
        logits.grad = boxes.grad = None
        return seconds(lambda: loss(logits, boxes, labels).backward())

    return run


def main() -> int:
    arguments = parser_of(__doc__).parse_args()
    if find_spec("rfdetr") is None:
        print("rfdetr is not installed here: nothing was measured", file=sys.stderr)
        return 1
    torch.set_num_threads(1)
    tables = Tables(arguments.json)
    columns = {
        "case": "",
        "RF-DETR, ms": ".1f",
        "ours, focal, ms": ".1f",
        "times faster": ".1f",
        "ours, DETR's, ms": ".1f",
        "times": ".1f",
    }
    tables.begin(columns)
    ways = [theirs(), by(FOCAL), by(detr_criterion())]
    for case in CASES:
        runs = [once(way, case) for way in ways]
        for run in runs:
            run(), run()
        rounds = [[run() for run in runs] for _ in range(max(5, case.runs // 2))]
        middle = [1000 * statistics.median(times) for times in zip(*rounds, strict=True)]
        faster = [statistics.median(one[0] / one[place] for one in rounds) for place in (1, 2)]
        tables.row(str(case), middle[0], middle[1], faster[0], middle[2], faster[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
