"""Normalized Wasserstein distance, for small objects (Wang et al., 2021, arXiv:2110.13389)."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from detr_ft.structures import Matches, Predictions, Targets


def nwd(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Similarity of cxcywh boxes, 1 if equal and near 0 if distant: `[..., 4]` and `[..., 4]` to `[...]`."""
    centers, sizes = a[..., :2] - b[..., :2], (a[..., 2:] - b[..., 2:]) / 2
    squared = (centers**2).sum(-1) + (sizes**2).sum(-1)
    return (-(squared + 1e-12).sqrt() / scale).exp()


@dataclass(frozen=True)
class NWDCost:
    weight: float = 2.0
    scale: float = 0.05  # fractions of the image

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:  # [L, P, Q]
        return -nwd(predictions.boxes[:, targets.image], targets.boxes[:, None], self.scale)


@dataclass(frozen=True)
class NWDLoss:
    weight: float = 2.0
    scale: float = 0.05
    name: ClassVar[str] = "loss_nwd"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:  # [L]
        predicted, true = matches.predicted(predictions.boxes), matches.target_values(targets.boxes)
        return matches.per_layer(1 - nwd(predicted, true, self.scale)) / matches.num_boxes
