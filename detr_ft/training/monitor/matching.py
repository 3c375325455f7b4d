"""Statistics of the matching: in a step, and between evaluations on the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import iou
from detr_ft.criterion import SetCriterion
from detr_ft.criterion.explain import regrets
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models.families import family_of
from detr_ft.models.predict import inference
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.step_loader import MicroBatch
from detr_ft.utils.collectives import gather_objects

FailuresOf = Callable[[MicroBatch], AbstractContextManager[None]]
Tally = dict[str, tuple[float, float]]  # the sum and the count of each statistic

_SQUARED_GRADIENT = "gradient_square_"
_MIN_LOGIT_FRACTION = 1e-4  # boxes are clamped to it and to 1 minus it, so that their logits stay finite
_MAX_SAMPLE_IMAGES = 64


def tally(criterion: SetCriterion, predictions: Predictions, targets: Targets) -> Tally:
    """Return sums and counts of a batch: of the last layer, unless stated otherwise.

    `class_accuracy`: matched queries whose likeliest class, no-object among them, is the target's (DETR's `class_error`).
    `matched_iou`: of matched boxes. `left_out`: targets without a query. `no_object_share`: queries whose likeliest class
    is no-object. `changed_between_layers`: pairs that the previous layer does not have. `regret`: the additional cost of
    the best assignment without a pair, for a matcher with costs; near 0 the matching is ambiguous. `gradient_square_NAME`:
    of each weighted loss the squared norm of its gradient at the heads' outputs (logits, and boxes before the sigmoid),
    all layers; `matching_statistics` turns them into fractions.
    """
    matches = criterion.matcher(predictions, targets)
    last = matches.layer == predictions.num_layers - 1
    likeliest = predictions.most_probable[-1]  # [B, Q]
    right = likeliest[matches.image, matches.query][last] == targets.labels[matches.target[last]]
    boxes = predictions.boxes[-1][matches.image, matches.query][last]
    overlap = iou(boxes, targets.boxes[matches.target[last]].to(boxes))
    num_targets = len(targets.labels)
    matched = len(matches.target[last].unique())
    pair_regrets = regrets(criterion, predictions, targets)
    squares = _squared_gradients(criterion, predictions, targets, matches)
    return {
        "class_accuracy": (float(right.sum()), len(right)),
        "matched_iou": (float(overlap.sum()), len(overlap)),
        "left_out": (num_targets - matched, num_targets),
        "no_object_share": (float((likeliest == predictions.num_classes).sum()), likeliest.numel()),
        "changed_between_layers": _changed(matches, predictions.num_queries, num_targets),
        "regret": (sum(pair_regrets), len(pair_regrets)),
        **{f"{_SQUARED_GRADIENT}{name}": (value, 1) for name, value in squares.items()},
    }


def matching_statistics(tallies: Iterable[Mapping[str, tuple[float, float]]]) -> dict[str, float]:
    """Return the statistics of the tallies of all processes, which must all call this; none of count 0."""
    sums = _add_up(tallies)
    sums = _add_up(gather_objects(sums))
    squares = {name: sums.pop(name)[0] for name in [*sums] if name.startswith(_SQUARED_GRADIENT)}
    means = {name: round(value / count, 4) for name, (value, count) in sorted(sums.items()) if count}
    return means | _fractions({name.removeprefix(_SQUARED_GRADIENT): value for name, value in sorted(squares.items())})


class MatchingSample:
    """Up to 64 training images, evenly spread and not augmented, to compare the matching over time."""

    def __init__(self, split: Dataset, form: ImageFormat, batch_size: int) -> None:
        rows = torch.linspace(0, len(split) - 1, min(_MAX_SAMPLE_IMAGES, len(split))).long().tolist()
        self._rows = rows
        self._examples = TrainDataset(split.select(rows), TrainTransform(form), 0)
        self._format, self._batch_size = form, batch_size
        self.partners = torch.zeros(0, dtype=torch.long)  # the query of each target at the latest update, -1 for none

    def update(
        self,
        model: Any,
        criterion: SetCriterion,
        device: torch.device,
        failures_of: FailuresOf = lambda micro: nullcontext(),
    ) -> dict[str, float]:
        """Match the sample by the last layer; return the changes since the previous update.

        A batch is matched in the context that `failures_of` returns for it.

        `changed_since_last`: targets with another query than at the previous update (Li et al., CVPR 2022, DN-DETR,
        equation 2, over the number of targets). `queries_never_used`: queries without a target in the sample.
        """
        parts = []
        queries = 0
        with inference(model):
            for start in range(0, len(self._examples), self._batch_size):
                stop = min(start + self._batch_size, len(self._examples))
                batch = collate([self._examples.at(0, index) for index in range(start, stop)], self._format.canvas)
                with failures_of(MicroBatch(batch, self._rows[start:stop], True)):
                    partners, queries = self._partners(model, criterion, batch, device)
                parts.append(partners)
        partners = torch.cat(parts)
        if not len(partners):
            return {}
        used = len(partners[partners >= 0].unique())
        changes = {"queries_never_used": round(1 - used / queries, 4), "objects_looked_at": len(partners)}
        if len(self.partners) == len(partners):
            changes["changed_since_last"] = round(float((partners != self.partners).float().mean()), 4)
        self.partners = partners
        return changes

    def _partners(
        self, model: Any, criterion: SetCriterion, batch: Mapping[str, Any], device: torch.device
    ) -> tuple[Tensor, int]:
        """Return the query of each target of a batch, -1 for none, and the number of queries."""
        pixels = {name: batch[name].to(device) for name in ("pixel_values", "pixel_mask")}
        outputs = model(**self._format.normalize(pixels))
        predictions = family_of(model).final(outputs.logits, outputs.pred_boxes)
        targets = Targets.from_labels(batch["labels"], device)
        matches = criterion.matcher(predictions, targets)
        partners = torch.full((len(targets.labels),), -1)
        partners[matches.target.cpu()] = matches.query.cpu()
        return partners, predictions.num_queries


def _add_up(tallies: Iterable[Mapping[str, tuple[float, float]]]) -> Tally:
    """Return the sum of tallies, of which some may lack a statistic."""
    sums: Tally = {}
    for entries in tallies:
        for name, (value, count) in entries.items():
            total, number = sums.get(name, (0.0, 0.0))
            sums[name] = total + value, number + count
    return sums


def _changed(matches: Matches, queries: int, targets: int) -> tuple[float, float]:
    """Return the number of pairs that the previous layer does not have, and of all from layer 1 on."""
    pairs_per_layer = targets * queries
    pairs = matches.layer * pairs_per_layer + matches.target * queries + matches.query
    later = pairs[matches.layer > 0]
    return float((~torch.isin(later - pairs_per_layer, pairs)).sum()), len(later)


def _squared_gradients(
    criterion: SetCriterion, predictions: Predictions, targets: Targets, matches: Matches
) -> dict[str, float]:
    """Return the squared norm of each weighted loss's gradient, additive over batches."""
    with torch.enable_grad():
        logits = predictions.logits.detach().float().requires_grad_()
        before_sigmoid = predictions.boxes.detach().float().logit(_MIN_LOGIT_FRACTION).requires_grad_()
        recomputed = replace(predictions, logits=logits, boxes=before_sigmoid.sigmoid())
        squares = {}
        for loss in criterion.losses:
            value = loss.weight * loss(recomputed, targets, matches).sum() if loss.weight else logits.new_zeros(())
            if not value.requires_grad:
                continue
            parts = torch.autograd.grad(value, (logits, before_sigmoid), retain_graph=True, allow_unused=True)
            squares[loss.name] = sum(float(part.square().sum()) for part in parts if part is not None)
    return squares


def _fractions(squares: Mapping[str, float]) -> dict[str, float]:
    """Return the norm of each gradient as a fraction of the sum of the norms."""
    norms = {name: square**0.5 for name, square in squares.items()}
    total = sum(norms.values())
    return {f"gradient_share_{name}": round(norm / total, 4) for name, norm in norms.items()} if total else {}
