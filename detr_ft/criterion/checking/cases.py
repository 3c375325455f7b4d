"""Small batches, some of them nasty, that terms are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detr_ft.structures import Predictions, Targets

LAYERS, QUERIES = 3, 7


@dataclass(frozen=True, eq=False)
class Case:
    """A batch with a name that a message can give."""

    name: str
    predictions: Predictions
    targets: Targets

    def __str__(self) -> str:
        return f"{self.name} (objects of each image: {', '.join(map(str, self.targets.counts))})"


def cases(classes: int) -> list[Case]:
    """Batches for a criterion of so many classes, from ordinary to extreme."""
    batches = {
        "an ordinary batch": (2, 3, 1),
        "an image without objects": (2, 0, 1),
        "a batch without objects": (0, 0),
        "more objects than queries": (QUERIES + 2, 1),
    }
    cases = [Case(name, *_batch(counts, classes)) for name, counts in batches.items()]
    predictions, targets = _batch((2, 3, 1), classes)
    extreme = Predictions((predictions.logits.detach() * 40).requires_grad_(), _thin(predictions.boxes))
    cases.append(Case("extreme logits and boxes without area", extreme, targets))
    flat = replace(
        targets, boxes=targets.boxes * torch.tensor([[1.0, 1, 0, 1], [1, 1, 1, 0], [1, 1, 0, 0]])[torch.arange(6) % 3]
    )
    cases.append(Case("objects without area", predictions, flat))
    same = predictions.boxes.detach().clone()
    same[:, 1, :3] = targets.boxes[2:5]
    cases.append(Case("boxes that are exactly right", Predictions(predictions.logits, same.requires_grad_()), targets))
    return cases


def many_queries(classes: int) -> Case:
    """A batch as large as a real model's in its queries."""
    return Case("100 queries", *_batch((3, 1), classes, queries=100))


def _batch(counts: Sequence[int], classes: int, queries: int = QUERIES) -> tuple[Predictions, Targets]:
    generator = torch.Generator().manual_seed(0)
    shape = (LAYERS, len(counts), queries)
    logits = torch.randn(*shape, classes + 1, generator=generator).requires_grad_()
    boxes = _boxes(*shape, generator=generator).requires_grad_()
    total = sum(counts)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    truth = _boxes(total, generator=generator)
    labels = torch.randint(classes, (total,), generator=generator)
    return Predictions(logits, boxes), Targets(labels, truth, image, tuple(counts))


def _boxes(*shape: int, generator: torch.Generator) -> Tensor:
    """Cxcywh boxes that lie within the image."""
    centre, size = torch.rand(2, *shape, 2, generator=generator)
    return torch.cat([0.3 + 0.4 * centre, 0.05 + 0.5 * size], -1)


def _thin(boxes: Tensor) -> Tensor:
    """The same boxes with every second one of no width."""
    thin = boxes.detach().clone()
    thin[..., ::2, 2] = 0
    return thin.requires_grad_()


def elsewhere(predictions: Predictions, image: int) -> Predictions:
    """The same predictions for one image, others for the rest."""
    logits, boxes = predictions.logits.detach().flip(-1) + 1, predictions.boxes.detach().flip(-2) * 0.9
    logits[:, image], boxes[:, image] = predictions.logits[:, image].detach(), predictions.boxes[:, image].detach()
    return Predictions(logits, boxes)


def reversal(targets: Targets) -> list[int]:
    """For each target the place of the one that takes its turn when each image's targets are reversed."""
    starts = [sum(targets.counts[:index]) for index in range(len(targets.counts))]
    return [
        start + offset for start, count in zip(starts, targets.counts, strict=True) for offset in reversed(range(count))
    ]


def reversed_targets(targets: Targets) -> Targets:
    """The same truth, the targets of each image in reverse order."""
    order = reversal(targets)
    return replace(targets, labels=targets.labels[order], boxes=targets.boxes[order])
