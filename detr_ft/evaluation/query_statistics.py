"""What the matching says of a model on a set: layer by layer, and query by query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from detr_ft.boxes import iou
from detr_ft.evaluation.metrics import LayerMatching, MatchingMetrics
from detr_ft.structures import Matches, Predictions, Targets

_REACHED = 0.5  # an object is reached by a query whose box has this IoU with it, whatever its class
_SURE = 0.5  # a score above which a query says something


class QueryBoxes(NamedTuple):
    """A query, the number of objects matched to it, and its boxes `[I, 4]` in all images (cxcywh, fractions)."""

    query: int
    matched: int
    boxes: Tensor


@dataclass
class _Layer:
    """Sums over the objects of a set."""

    matched: int = 0
    iou: float = 0.0
    right: int = 0
    settled: int = 0  # with the query of the last layer
    answers: int = 0  # queries that are sure, overlap an object of the class they name, at IoU 0.5 or more
    answered: int = 0  # objects with such an answer


@dataclass
class Assignments:
    """Gathers, batch by batch, whom a matcher pairs: `add` them all, then ask for `layers` and `summary`.

    `places` holds for each query the boxes (cxcywh, fractions of the image) that it predicted, of every image: what the
    queries have specialised in (Carion et al., ECCV 2020, figure 7).
    """

    matcher: Callable[[Predictions, Targets], Matches]
    objects: int = 0
    unreached: int = 0
    beyond: int = 0  # objects of images that hold more than there are queries
    _layers: list[_Layer] = field(default_factory=list)
    _taken: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    _places: list[Tensor] = field(default_factory=list)

    @torch.no_grad()
    def add(self, predictions: Predictions, targets: Targets) -> None:
        """Take in a batch of all layers."""
        self._layers = self._layers or [_Layer() for _ in range(predictions.num_layers)]
        self._places.append(predictions.boxes[-1].float().cpu())
        queries = predictions.num_queries
        self._taken = self._taken if len(self._taken) else torch.zeros(queries, dtype=torch.long)
        self.objects += len(targets.labels)
        self.beyond += sum(max(0, count - queries) for count in targets.counts)
        matches = self.matcher(predictions, targets)
        partners = torch.full((predictions.num_layers, len(targets.labels)), -1, device=matches.query.device)
        partners[matches.layer, matches.target] = matches.query
        for number, layer in enumerate(self._layers):
            self._add_layer(layer, partners[number], partners[-1], number, predictions, targets)
        last = partners[-1]
        self._taken += torch.bincount(last[last >= 0], minlength=queries).cpu()
        reached = iou(targets.boxes[:, None], predictions.boxes[-1][targets.image]).amax(1) if len(last) else last
        self.unreached += int((reached < _REACHED).sum())

    def _add_layer(
        self, layer: _Layer, partner: Tensor, last: Tensor, number: int, predictions: Predictions, targets: Targets
    ) -> None:
        paired = (partner >= 0).nonzero()[:, 0]
        image, query = targets.image[paired], partner[paired]
        scores, labels = (values[0] for values in predictions.layers(number, number + 1).best)
        layer.matched += len(paired)
        layer.iou += float(iou(predictions.boxes[number, image, query], targets.boxes[paired]).sum())
        layer.right += int((labels[image, query] == targets.labels[paired]).sum())
        layer.settled += int((partner[paired] == last[paired]).sum())
        if len(partner):
            overlap = iou(targets.boxes[:, None], predictions.boxes[number][targets.image])  # [P, Q]
            own = labels[targets.image] == targets.labels[:, None]
            answers = ((overlap >= _REACHED) & own & (scores[targets.image] > _SURE)).sum(1)
            layer.answers, layer.answered = (
                layer.answers + int(answers.sum()),
                layer.answered + int((answers > 0).sum()),
            )

    @property
    def layers(self) -> list[LayerMatching]:
        """The matching of each layer."""
        return [
            LayerMatching(
                iou=one.iou / max(1, one.matched),
                right=one.right / max(1, one.matched),
                settled=one.settled / max(1, one.matched),
                answers_an_object=one.answers / max(1, one.answered),
            )
            for one in self._layers
        ]

    def summary(self) -> MatchingMetrics:
        """The matching of all layers and queries."""
        return MatchingMetrics(
            layers=self.layers,
            objects=self.objects,
            unreached=self.unreached,
            beyond=self.beyond,
            queries=len(self._taken),
            queries_used=int((self._taken > 0).sum()),
        )

    def places(self, most: int) -> list[QueryBoxes]:
        """Return the `most` queries that matched the most objects, the first the most used."""
        boxes = torch.cat(self._places) if self._places else torch.zeros(0, 0, 4)
        order = self._taken.argsort(descending=True, stable=True)[:most].tolist()
        return [QueryBoxes(query, int(self._taken[query]), boxes[:, query]) for query in order]
