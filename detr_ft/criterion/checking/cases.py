"""Small batches, ordinary and extreme, for the checks of terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from detr_ft.structures import Activation, Matches, Predictions, Targets

LAYERS, QUERIES = 3, 7


@dataclass(frozen=True, eq=False)
class Case:
    """A batch with a name for messages."""

    name: str
    predictions: Predictions
    targets: Targets

    def __str__(self) -> str:
        return f"{self.name} (objects of each image: {', '.join(map(str, self.targets.counts))})"


def example(activation: Activation = "softmax") -> tuple[Predictions, Targets, Matches]:
    """One layer of an image with one object, two queries and K = 2: for examples in docstrings.

    The object has class 0 and the box (0.5, 0.5, 0.4, 0.2). Query 0 is matched: p = 0.7 for class 0, 0.2 for class 1,
    and a box twice as high, so that IoU = 0.5. Query 1 has 0.1, 0.1 and a box elsewhere.
    """
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    logits = probabilities.log() if activation == "softmax" else probabilities[:, :2].logit()
    boxes = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.1, 0.1, 0.2, 0.2]])
    targets = Targets(torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.4, 0.2]]), torch.tensor([0]), (1,))
    zero = torch.tensor([0])
    matches = Matches(layer=zero, image=zero, query=zero, target=zero, num_boxes=torch.ones(1))
    return Predictions.from_layer(logits[None], boxes[None], activation), targets, matches


def cases(classes: int, activation: Activation = "softmax") -> list[Case]:
    """Batches of `classes` classes, from ordinary to extreme."""
    counts_by_name = {
        "an ordinary batch": (2, 3, 1),
        "an image without objects": (2, 0, 1),
        "a batch without objects": (0, 0),
        "more objects than queries": (QUERIES + 2, 1),
    }
    cases = [Case(name, *_batch(counts, classes, activation)) for name, counts in counts_by_name.items()]
    predictions, targets = _batch((2, 3, 1), classes, activation)
    large_logits = (predictions.logits.detach() * 40).requires_grad_()
    extreme = replace(predictions, logits=large_logits, boxes=_without_width(predictions.boxes))
    cases.append(Case("extreme logits and boxes without area", extreme, targets))
    flat = replace(
        targets, boxes=targets.boxes * torch.tensor([[1.0, 1, 0, 1], [1, 1, 1, 0], [1, 1, 0, 0]])[torch.arange(6) % 3]
    )
    cases.append(Case("objects without area", predictions, flat))
    exact = predictions.boxes.detach().clone()
    exact[:, 1, :3] = targets.boxes[2:5]
    cases.append(Case("exact boxes", replace(predictions, boxes=exact.requires_grad_()), targets))
    return cases


def many_queries(classes: int, activation: Activation = "softmax") -> Case:
    """A batch with as many queries as a real model."""
    return Case("100 queries", *_batch((3, 1), classes, activation, queries=100))


def _batch(
    counts: Sequence[int], classes: int, activation: Activation, queries: int = QUERIES
) -> tuple[Predictions, Targets]:
    generator = torch.Generator().manual_seed(0)
    shape = (LAYERS, len(counts), queries)
    outputs = classes + 1 if activation == "softmax" else classes
    logits = torch.randn(*shape, outputs, generator=generator).requires_grad_()
    boxes = _boxes(*shape, generator=generator).requires_grad_()
    total = sum(counts)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    true_boxes = _boxes(total, generator=generator)
    labels = torch.randint(classes, (total,), generator=generator)
    return Predictions(logits, boxes, activation), Targets(labels, true_boxes, image, tuple(counts))


def _boxes(*shape: int, generator: torch.Generator) -> Tensor:
    """Random cxcywh boxes within the image."""
    center, size = torch.rand(2, *shape, 2, generator=generator)
    return torch.cat([0.3 + 0.4 * center, 0.05 + 0.5 * size], -1)


def _without_width(boxes: Tensor) -> Tensor:
    """The same boxes with a width of 0 for every second one."""
    thin = boxes.detach().clone()
    thin[..., ::2, 2] = 0
    return thin.requires_grad_()


def with_other_images_changed(predictions: Predictions, image: int) -> Predictions:
    """The same predictions for one image, different ones for the others."""
    logits, boxes = predictions.logits.detach().flip(-1) + 1, predictions.boxes.detach().flip(-2) * 0.9
    logits[:, image], boxes[:, image] = predictions.logits[:, image].detach(), predictions.boxes[:, image].detach()
    return replace(predictions, logits=logits, boxes=boxes)


def in_precision(predictions: Predictions, dtype: torch.dtype) -> Predictions:
    """The same predictions in another precision."""
    return replace(predictions, logits=predictions.logits.to(dtype), boxes=predictions.boxes.to(dtype))


def reversal(targets: Targets) -> list[int]:
    """For each target the index of its replacement when the targets of each image are reversed."""
    starts = [sum(targets.counts[:index]) for index in range(len(targets.counts))]
    return [
        start + offset for start, count in zip(starts, targets.counts, strict=True) for offset in reversed(range(count))
    ]


def reversed_targets(targets: Targets) -> Targets:
    """The same targets, those of each image in reverse order."""
    order = reversal(targets)
    return replace(targets, labels=targets.labels[order], boxes=targets.boxes[order])
