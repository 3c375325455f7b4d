"""Random predictions and targets with different numbers of objects."""

from __future__ import annotations

import torch

from detr_ft.structures import Matches, Predictions, Targets


def random_boxes(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Random cxcywh boxes within the image."""
    center, size = torch.rand(2, *shape, 2, generator=generator, dtype=dtype)
    return torch.cat([0.3 + 0.4 * center, 0.02 + 0.5 * size], -1)


def random_batch(
    seed: int,
    counts: tuple[int, ...],
    layers: int = 3,
    queries: int = 9,
    classes: int = 5,
    dtype: torch.dtype = torch.float32,
) -> tuple[Predictions, Targets, list[dict[str, torch.Tensor]]]:
    """Predictions with gradient, targets, and the same targets as labels of transformers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (layers, len(counts), queries)
    logits = (3 * torch.randn(*shape, classes + 1, generator=generator, dtype=dtype)).requires_grad_()
    boxes = random_boxes(*shape, generator=generator, dtype=dtype).requires_grad_()
    labels = [
        {
            "class_labels": torch.randint(classes, (count,), generator=generator),
            "boxes": random_boxes(count, generator=generator, dtype=dtype),
        }
        for count in counts
    ]
    return Predictions(logits, boxes), Targets.from_labels(labels, logits.device), labels


def pairs_as_lists(matches: Matches) -> list[tuple[int, int, int, int]]:
    """The pairs `(layer, image, query, target)` on the host, sorted."""
    stacked: torch.Tensor = torch.stack([matches.layer, matches.image, matches.query, matches.target], 1)
    return sorted((int(a), int(b), int(c), int(d)) for a, b, c, d in stacked.tolist())
