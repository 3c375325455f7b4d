"""Predictions, targets and matches: the only place where shapes are defined.

L decoder layers (the last is the final one), B images, Q queries, K classes (index K is no-object),
P targets of the whole batch one after another, M matched pairs. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the model says: `logits [L, B, Q, K+1]` and `boxes [L, B, Q, 4]`, cxcywh, fractions of the un-padded image."""

    logits: Tensor
    boxes: Tensor

    def __post_init__(self) -> None:
        if self.logits.ndim != 4 or self.boxes.shape != (*self.logits.shape[:3], 4):
            raise ValueError(
                "Predictions need logits [L, B, Q, K+1] and boxes [L, B, Q, 4] of the same L, B, Q; "
                f"got {list(self.logits.shape)} and {list(self.boxes.shape)}"
            )

    @property
    def num_layers(self) -> int:
        return self.logits.shape[0]

    @property
    def num_images(self) -> int:
        return self.logits.shape[1]

    @property
    def num_queries(self) -> int:
        return self.logits.shape[2]

    @property
    def num_classes(self) -> int:
        """K: the number of classes without no-object, which is also no-object's index."""
        return self.logits.shape[3] - 1

    @property
    def device(self) -> torch.device:
        return self.logits.device

    def layers(self, start: int, stop: int) -> Predictions:
        """The same predictions for the layers `start..stop-1` alone."""
        return Predictions(self.logits[start:stop], self.boxes[start:stop])


@dataclass(frozen=True, eq=False)
class Step:
    """What a whole optimisation step holds, over all processes and accumulated micro-batches, divided by the processes.

    `images` is their number, `labels [K]` the number of targets of each class. A class loss that is a mean over queries
    divides by what the step weighs, not by what its own share does: then no way of sharing out the images matters.
    """

    images: float
    labels: Tensor


@dataclass(frozen=True, eq=False)
class Targets:
    """The truth of a batch: `labels [P]`, `boxes [P, 4]` (cxcywh, fractions of the un-padded image), `image [P]`.

    `counts` holds the number of targets of each of the B images, as host integers. `num_boxes` is the number that box
    losses are divided by: the targets of the whole optimisation step over all processes and accumulated micro-batches,
    divided by the number of processes, at least 1 (facebookresearch/detr, `SetCriterion.forward`, extended to
    accumulation). Left out, it is the number of targets of this batch. `step`, where given, is for class losses what
    `num_boxes` is for box losses.
    """

    labels: Tensor
    boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]
    num_boxes: float = 0.0
    step: Step | None = None

    def __post_init__(self) -> None:
        total = sum(self.counts)
        if self.labels.shape != (total,) or self.boxes.shape != (total, 4) or self.image.shape != (total,):
            raise ValueError(
                f"Targets with counts {list(self.counts)} need labels [{total}], boxes [{total}, 4] and image [{total}]; "
                f"got {list(self.labels.shape)}, {list(self.boxes.shape)} and {list(self.image.shape)}"
            )
        if self.num_boxes <= 0:
            object.__setattr__(self, "num_boxes", float(max(total, 1)))

    @classmethod
    def from_labels(
        cls,
        labels: Sequence[Mapping[str, Tensor]],
        device: torch.device,
        num_boxes: float = 0.0,
        step: Step | None = None,
    ) -> Targets:
        """From the list that transformers takes: a mapping with `class_labels [T]` and `boxes [T, 4]` for each image."""
        counts = tuple(len(one["class_labels"]) for one in labels)
        image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
        if not counts:
            return cls(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), image, counts, num_boxes, step).to(device)
        return cls(
            torch.cat([one["class_labels"] for one in labels]).to(device, non_blocking=True),
            torch.cat([one["boxes"] for one in labels]).to(device, non_blocking=True),
            image.to(device, non_blocking=True),
            counts,
            num_boxes,
            step,
        )

    def to(self, device: torch.device) -> Targets:
        """The same targets on another device."""
        return replace(self, labels=self.labels.to(device), boxes=self.boxes.to(device), image=self.image.to(device))


@dataclass(frozen=True, eq=False)
class Matches:
    """M pairs of a query and a target, as four index vectors `[M]`, and what box losses are divided by, `[L]`.

    One-to-one, one-to-many, more targets than queries, another matcher for each layer: all are just other pairs.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    num_boxes: Tensor

    def predicted(self, values: Tensor) -> Tensor:
        """The matched queries' entries of `values [L, B, Q, ...]`: `[M, ...]`."""
        return values[self.layer, self.image, self.query]

    def target_values(self, values: Tensor) -> Tensor:
        """The matched targets' entries of `values [P, ...]`: `[M, ...]`."""
        return values[self.target]

    def per_layer(self, values: Tensor) -> Tensor:
        """The sum of `values [M]` within each layer: `[L]`."""
        return values.new_zeros(len(self.num_boxes)).index_add(0, self.layer, values)

    @staticmethod
    def join(parts: Sequence[Matches]) -> Matches:
        """The matches of successive blocks of layers as those of all layers."""
        offset, layers = 0, []
        for part in parts:
            layers.append(part.layer + offset)
            offset += len(part.num_boxes)
        return Matches(
            torch.cat(layers),
            torch.cat([part.image for part in parts]),
            torch.cat([part.query for part in parts]),
            torch.cat([part.target for part in parts]),
            torch.cat([part.num_boxes for part in parts]),
        )


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in one image, best first: `boxes [N, 4]` xyxy in pixels of the upright original, `scores [N]`, `labels [N]`."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def above(self, threshold: float) -> Detections:
        """Those whose score is greater than the threshold."""
        keep = self.scores > threshold
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])
