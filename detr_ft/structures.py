"""Predictions, targets and matches: the only place where shapes are defined.

L decoder layers (the last is the final one), B images, Q queries, K classes (index K is no-object),
P targets of the whole batch one after another, M matched pairs. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detr_ft.boxes import at_least_fp32, xyxy_to_xywh

# From `[L, B, Q, C]` to `[C, B, L, Q]`, and back.
_APART, _TOGETHER = (3, 1, 0, 2), (2, 1, 3, 0)
_SHOWN = 5  # detections in a repr


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

    @property
    def log_probabilities(self) -> Tensor:
        """Log-softmax of the logits over K+1, in at least fp32: `[L, B, Q, K+1]`, without gradient: for costs."""
        return self._once(self.logits, lambda logits: at_least_fp32(logits).log_softmax(-1))

    def log_probability(self, classes: Tensor) -> Tensor:
        """`log p(c)` of one class for each query, `classes [L, B, Q]`, in at least fp32: `[L, B, Q]`, with gradient: for losses."""
        chosen: Tensor = _LogProbability.apply(self.logits, self.log_probabilities, classes[..., None])
        return chosen

    @property
    def cxcywh(self) -> Tensor:
        """The boxes in at least fp32, `[L, B, Q, 4]`, without gradient: for costs.

        In memory each coordinate lies by itself, and an image's layers and queries together: what costs compute for
        every target then runs over those, which is several times faster than over the four numbers of a box.
        """
        return self._once(
            self.boxes, lambda boxes: at_least_fp32(boxes).permute(_APART).contiguous().permute(_TOGETHER)
        )

    def _once(self, source: Tensor, work_out: Callable[[Tensor], Tensor]) -> Tensor:
        """What is worked out from `source`, without gradient, and kept until somebody changes that in place."""
        version = -1 if source.is_inference() else source._version
        known = self._known.get(id(source))
        if known is None or known[0] != version:
            known = self._known[id(source)] = version, work_out(source.detach())
        return known[1]

    @cached_property
    def _known(self) -> dict[int, tuple[int, Tensor]]:
        return {}

    def layers(self, start: int, stop: int) -> Predictions:
        """The same predictions for the layers `start..stop-1` alone."""
        if (start, stop) == (0, self.num_layers):
            return self  # with what is worked out already
        return Predictions(self.logits[start:stop], self.boxes[start:stop])


@dataclass(frozen=True, eq=False)
class StepTotals:
    """What a whole optimisation step holds, over all processes and accumulated micro-batches, divided by the processes.

    `images` is their number, `labels [K]` the number of targets of each class. A class loss that is a mean over queries
    divides by what the step weighs, not by what its own share does: then no way of sharing out the images matters.
    """

    images: float | Tensor
    labels: Tensor

    @property
    def num_boxes(self) -> Tensor:
        """The number of targets, at least 1; on the device, and nothing waits for it."""
        return self.labels.sum().clamp(min=1)


@dataclass(frozen=True, eq=False)
class Targets:
    """The truth of a batch: `labels [P]`, `boxes [P, 4]` (cxcywh, fractions of the un-padded image), `image [P]`.

    `counts` holds the number of targets of each of the B images, as host integers. `num_boxes` is the number that box
    losses are divided by: the targets of the whole optimisation step over all processes and accumulated micro-batches,
    divided by the number of processes, at least 1 (facebookresearch/detr, `SetCriterion.forward`, extended to
    accumulation). `step`, where given, is for class losses what `num_boxes` is for box losses. Left out, `num_boxes` is
    that of the step, and without a step the number of targets of this batch.
    """

    labels: Tensor
    boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]
    num_boxes: float | Tensor = 0.0
    step: StepTotals | None = None

    def __post_init__(self) -> None:
        total = sum(self.counts)
        if self.labels.shape != (total,) or self.boxes.shape != (total, 4) or self.image.shape != (total,):
            raise ValueError(
                f"Targets with counts {list(self.counts)} need labels [{total}], boxes [{total}, 4] and image [{total}]; "
                f"got {list(self.labels.shape)}, {list(self.boxes.shape)} and {list(self.image.shape)}"
            )
        if not isinstance(self.num_boxes, Tensor) and self.num_boxes <= 0:
            default = float(max(total, 1)) if self.step is None else self.step.num_boxes
            object.__setattr__(self, "num_boxes", default)

    @classmethod
    def from_labels(
        cls,
        labels: Sequence[Mapping[str, Tensor]],
        device: torch.device,
        num_boxes: float | Tensor = 0.0,
        step: StepTotals | None = None,
    ) -> Targets:
        """From the list that transformers takes: a mapping with `class_labels [T]` and `boxes [T, 4]` for each image."""
        counts = tuple(one["class_labels"].shape[0] for one in labels)
        image = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        if not counts:
            return cls(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), image, counts, num_boxes, step).to(device)
        classes = torch.cat([one["class_labels"] for one in labels])
        if len(classes) and classes.is_floating_point():
            raise ValueError(f"class_labels must be whole numbers, got {classes.dtype}")
        return cls(
            classes.long().to(device, non_blocking=True),
            torch.cat([one["boxes"] for one in labels]).to(device, non_blocking=True),
            image.to(device, non_blocking=True),
            counts,
            num_boxes,
            step,
        )

    def queries(self, values: Tensor) -> Tensor:
        """The entries of `values [L, B, Q, C]` of each target's own image: `[P, L, Q, C]`, targets first.

        Where all targets are of one image it is `[1, L, Q, C]`, which broadcasts: nothing is copied.
        """
        held = [image for image, count in enumerate(self.counts) if count]
        if len(held) == 1:
            return values[:, held[0]][None]
        return values.permute(_APART).index_select(1, self.image).permute(1, 2, 3, 0)

    def image_of(self, target: int) -> int:
        """The image of a target, from the counts on the host."""
        return int(np.searchsorted(np.cumsum(self.counts), target, side="right"))

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
        # One index instead of three: the gradient is a sum at places, and no sort of them on a GPU.
        return values.flatten(0, 2).index_select(0, self._places(*values.shape[1:3]))

    def assign(self, values: Tensor, of_pairs: Tensor) -> Tensor:
        """`values [L, B, Q]`, changed in place: the matched queries get `of_pairs [M]`."""
        values.view(-1).scatter_(0, self._places(*values.shape[1:3]), of_pairs)
        return values

    def target_values(self, values: Tensor) -> Tensor:
        """The matched targets' entries of `values [P, ...]`: `[M, ...]`."""
        return values.index_select(0, self.target)

    def per_layer(self, values: Tensor) -> Tensor:
        """The sum of `values [M]` within each layer: `[L]`."""
        return values.new_zeros(len(self.num_boxes)).index_add(0, self.layer, values)

    def _places(self, images: int, queries: int) -> Tensor:
        """Where the matched queries stand among all, `[M]`; worked out once."""
        known = self._known_places.get((images, queries))
        if known is None:
            known = (self.layer * images + self.image) * queries + self.query
            self._known_places[images, queries] = known
        return known

    @cached_property
    def _known_places(self) -> dict[tuple[int, int], Tensor]:
        return {}

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


class Detection(NamedTuple):
    """One detected object; `box` is (x_min, y_min, x_max, y_max) in pixels of the upright original."""

    box: tuple[float, float, float, float]
    score: float
    name: str


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Detections in one image, best first.

    `boxes [N, 4]` are xyxy in pixels of the upright original, with `scores [N]` and `labels [N]`. `names` are those of the classes, in the order of their indices; without them a class is named by its index. Iteration
    gives `(box, score, name)`; an integer index gives one of these, a slice, mask `[N]` or index tensor gives `Detections`.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            yield Detection(tuple(box), score, self._name(label))

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: slice | Tensor | Sequence[int]) -> Detections: ...

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Detection | Detections:
        if isinstance(index, int):
            box: Any = tuple(self.boxes[index].tolist())
            return Detection(box, self.scores[index].item(), self._name(int(self.labels[index])))
        if not isinstance(index, (slice, Tensor)):
            index = torch.as_tensor(index, dtype=torch.long)
        return replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])

    def __repr__(self) -> str:
        shown = [f"{name} {score:.2f} [{', '.join(f'{x:.0f}' for x in box)}]" for box, score, name in self[:_SHOWN]]
        more = [f"{len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return f"Detections({', '.join([*shown, *more])})"

    def above(self, threshold: float) -> Detections:
        """Return the detections with a score greater than the threshold."""
        return self[self.scores > threshold]

    def above_each(self, thresholds: Sequence[float]) -> Detections:
        """Return the detections with a score greater than the threshold of their class, by its index."""
        return self[self.scores > self.scores.new_tensor(thresholds)[self.labels]]

    def to_coco(self, *, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return rows of COCO's results format: `image_id`, `category_id`, `bbox` (xywh, pixels) and `score`.

        `category_ids` has the id of each class, in the order of the class indices; without it the id is the index.
        """
        boxes, scores, labels = xyxy_to_xywh(self.boxes).tolist(), self.scores.tolist(), self.labels.tolist()
        ids = labels if category_ids is None else [category_ids[label] for label in labels]
        return [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}
            for category_id, box, score in zip(ids, boxes, scores, strict=True)
        ]

    def to_supervision(self) -> Any:
        """Return `supervision.Detections`, with class names in `data["class_name"]`.

        Raises ImportError without supervision.
        """
        try:
            supervision = import_module("supervision")
        except ImportError as error:
            raise ImportError(
                "Detections.to_supervision: supervision is not installed. Run: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.float().cpu().numpy().reshape(-1, 4),
            confidence=self.scores.float().cpu().numpy(),
            class_id=self.labels.cpu().numpy(),
            data={"class_name": np.array([self._name(label) for label in self.labels.tolist()], dtype=str)},
        )

    def _name(self, label: int) -> str:
        return self.names[label] if self.names else str(label)


class _LogProbability(torch.autograd.Function):
    """Entries of the log-softmax of `logits`, which is known already: values that costs and losses share are computed once."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, log_p: Tensor, classes: Tensor) -> Tensor:
        ctx.save_for_backward(log_p, classes)
        ctx.dtype = logits.dtype
        return log_p.gather(-1, classes)[..., 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        log_p, classes = ctx.saved_tensors
        of_class = gradient[..., None]
        of_logits = log_p.exp().mul_(-of_class).scatter_add_(-1, classes, of_class)  # 1 at the class, less p
        return of_logits.to(ctx.dtype), None, None
