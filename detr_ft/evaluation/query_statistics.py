"""Statistics of the matching on a set, by decoder layer and by query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from detr_ft.boxes import iou
from detr_ft.evaluation.metrics import LayerMatching, MatchingMetrics
from detr_ft.structures import Matches, Predictions, Targets

_MIN_IOU = 0.5  # of a box with an object that it reaches, whatever its class
_MIN_SCORE = 0.5  # of a confident query


class QueryBoxes(NamedTuple):
    """A query, the number of its matches, and its boxes `[I, 4]` in all images (cxcywh, fractions)."""

    query: int
    matched: int
    boxes: Tensor


@dataclass
class _LayerSums:
    """Sums over the objects of a set."""

    matched: int = 0
    iou: float = 0.0
    right: int = 0
    settled: int = 0  # matched to the query of the last layer
    covering: int = 0  # confident queries with an IoU of 0.5 or more with an object of their class
    covered: int = 0  # objects with such a query


@dataclass
class MatchingStatistics:
    """Collects the matches of a set: `add` all batches, then read `summary` and `most_used`."""

    matcher: Callable[[Predictions, Targets], Matches]
    objects: int = 0
    unreached: int = 0
    beyond: int = 0  # objects of images with more objects than queries
    _layers: list[_LayerSums] = field(default_factory=list)
    _uses: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    _boxes: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def add(self, predictions: Predictions, targets: Targets) -> None:
        """Add a batch of all layers."""
        self._layers = self._layers or [_LayerSums() for _ in range(predictions.num_layers)]
        self._boxes.append(predictions.boxes[-1].float().cpu())
        queries = predictions.num_queries
        self._uses = self._uses if len(self._uses) else torch.zeros(queries, dtype=torch.long)
        self.objects += len(targets.labels)
        self.beyond += sum(max(0, count - queries) for count in targets.counts)
        matches = self.matcher(predictions, targets)
        partners = torch.full((predictions.num_layers, len(targets.labels)), -1, device=matches.query.device)
        partners[matches.layer, matches.target] = matches.query
        for number, layer in enumerate(self._layers):
            self._add_layer(layer, partners[number], partners[-1], number, predictions, targets)
        last = partners[-1]
        self._uses += torch.bincount(last[last >= 0], minlength=queries).cpu()
        best = iou(targets.boxes[:, None], predictions.boxes[-1][targets.image]).amax(1) if len(last) else last
        self.unreached += int((best < _MIN_IOU).sum())

    def _add_layer(
        self, sums: _LayerSums, partner: Tensor, last: Tensor, number: int, predictions: Predictions, targets: Targets
    ) -> None:
        paired = (partner >= 0).nonzero()[:, 0]
        image, query = targets.image[paired], partner[paired]
        scores, labels = (values[0] for values in predictions.layers(number, number + 1).best)
        sums.matched += len(paired)
        sums.iou += float(iou(predictions.boxes[number, image, query], targets.boxes[paired]).sum())
        sums.right += int((labels[image, query] == targets.labels[paired]).sum())
        sums.settled += int((partner[paired] == last[paired]).sum())
        if len(partner):
            overlap = iou(targets.boxes[:, None], predictions.boxes[number][targets.image])  # [P, Q]
            same_class = labels[targets.image] == targets.labels[:, None]
            covering = ((overlap >= _MIN_IOU) & same_class & (scores[targets.image] > _MIN_SCORE)).sum(1)
            sums.covering += int(covering.sum())
            sums.covered += int((covering > 0).sum())

    def summary(self) -> MatchingMetrics:
        """Return the metrics of all layers and queries."""
        layers = [
            LayerMatching(
                iou=sums.iou / max(1, sums.matched),
                right=sums.right / max(1, sums.matched),
                settled=sums.settled / max(1, sums.matched),
                answers_an_object=sums.covering / max(1, sums.covered),
            )
            for sums in self._layers
        ]
        return MatchingMetrics(
            layers=layers,
            objects=self.objects,
            unreached=self.unreached,
            beyond=self.beyond,
            queries=len(self._uses),
            queries_used=int((self._uses > 0).sum()),
        )

    def most_used(self, count: int) -> list[QueryBoxes]:
        """Return the queries that matched the most objects (Carion et al., ECCV 2020, figure 7)."""
        boxes = torch.cat(self._boxes) if self._boxes else torch.zeros(0, 0, 4)
        order = self._uses.argsort(descending=True, stable=True)[:count].tolist()
        return [QueryBoxes(query, int(self._uses[query]), boxes[:, query]) for query in order]
