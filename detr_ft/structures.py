"""Predictions, targets and matches: the only place where shapes are defined.

L rows of predictions (decoder layers, the last is the final one), B images, Q queries, K classes, C logits of a query,
P targets of the whole batch one after another, M matched pairs. Nothing is padded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib import import_module
from operator import index as as_integer
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeAlias, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from detr_ft.boxes import at_least_fp32, xyxy_to_xywh
from detr_ft.errors import CriterionError, InputError, TargetError

Activation = Literal["softmax", "sigmoid"]

# Permutations of dimensions: from `[L, B, Q, C]` to `[C, B, L, Q]`, and back.
_COMPONENTS_FIRST, _COMPONENTS_LAST = (3, 1, 0, 2), (2, 1, 3, 0)
_SHOWN = 5  # detections in a repr, faults in a message
_LABELS = ("class_labels", "boxes")  # of transformers


@dataclass(frozen=True, eq=False)
class Predictions:
    """The outputs of a model: `logits [L, B, Q, C]` and `boxes [L, B, Q, 4]`.

    Boxes are cxcywh in fractions of the un-padded image. `activation` turns logits into probabilities: with "softmax"
    C is K + 1 and index K is no-object, with "sigmoid" C is K. `rows` names the L rows; a loss term is logged under
    `name_row`, or under `name` for the row "". By default the last row is "" and the others are "0", "1", ..., as in
    transformers. `extras` are further outputs `[L, B, Q, ...]` by name. Raises ValueError if shapes or rows do not fit.
    """

    logits: Tensor
    boxes: Tensor
    activation: Activation = "softmax"
    rows: tuple[str, ...] = ()
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tensors = {"logits": self.logits, "boxes": self.boxes, **self.extras}
        others = [f"{name} {type(value).__name__}" for name, value in tensors.items() if not isinstance(value, Tensor)]
        if others:
            raise CriterionError(f"Predictions: logits, boxes and extras must be tensors, got {', '.join(others)}")
        shape = self.logits.shape[:3]
        if self.logits.ndim != 4 or any(values.shape[:3] != shape for values in self.extras.values()):
            shapes = {name: list(values.shape) for name, values in {"logits": self.logits, **self.extras}.items()}
            raise ValueError(f"Predictions: logits [L, B, Q, C] and extras [L, B, Q, ...] must fit, got {shapes}")
        if self.boxes.shape != (*shape, 4):
            raise ValueError(
                f"Predictions: boxes must be {[*shape, 4]} beside these logits, got {list(self.boxes.shape)}"
            )
        rows = self.rows or (*map(str, range(shape[0] - 1)), "")
        if len(set(rows)) != shape[0]:
            raise ValueError(f"Predictions: rows must be {shape[0]} different names, got {list(rows)}")
        object.__setattr__(self, "rows", rows)

    @classmethod
    def from_layer(cls, logits: Tensor, boxes: Tensor, activation: Activation = "softmax") -> Predictions:
        """The predictions of a single layer, `logits [B, Q, C]` and `boxes [B, Q, 4]`."""
        return cls(logits[None], boxes[None], activation)

    @property
    def num_layers(self) -> int:
        """L: the number of layers, or rows, that losses supervise."""
        return self.logits.shape[0]

    @property
    def num_images(self) -> int:
        """B: the number of images."""
        return self.logits.shape[1]

    @property
    def num_queries(self) -> int:
        """Q: the number of queries of an image."""
        return self.logits.shape[2]

    @property
    def num_classes(self) -> int:
        """K: the number of classes without no-object, which is also the index of no-object."""
        return self.logits.shape[3] - 1 if self.activation == "softmax" else self.logits.shape[3]

    @property
    def device(self) -> torch.device:
        """The device of the logits."""
        return self.logits.device

    @property
    def probabilities(self) -> Tensor:
        """The probabilities of the classes and, with softmax, of no-object, in at least fp32: `[L, B, Q, C]`."""
        logits = at_least_fp32(self.logits)
        return logits.softmax(-1) if self.activation == "softmax" else logits.sigmoid()

    @property
    def best(self) -> tuple[Tensor, Tensor]:
        """The score and the label of the best class of each query, without no-object: twice `[L, B, Q]`."""
        scores, labels = self.probabilities[..., : self.num_classes].max(-1)
        return scores, labels

    @property
    def objectness(self) -> Tensor:
        """The probability that a query predicts an object of any class: `[L, B, Q]`."""
        if self.activation == "softmax":
            return 1 - self.probabilities[..., -1]
        return self.probabilities.amax(-1)

    @property
    def most_probable(self) -> Tensor:
        """The class that each query predicts, K where that is no-object: `[L, B, Q]`.

        With sigmoid a query predicts no-object where no class has a probability of at least one half.
        """
        likeliest = self.logits.argmax(-1)
        if self.activation == "softmax":
            return likeliest
        return likeliest.where(self.logits.amax(-1) >= 0, self.num_classes)

    @property
    def log_probabilities(self) -> Tensor:
        """The logarithms of `probabilities`, `[L, B, Q, C]`, without gradient: for costs."""
        return self._cached(self.logits, self._log_probabilities)

    def log_probability(self, classes: Tensor) -> Tensor:
        """`log p(c)` of one class for each query, `classes [L, B, Q]`, with gradient: for losses.

        `[L, B, Q]` in at least fp32. With softmax a class may be K, no-object.
        """
        indices = classes[..., None]
        if self.activation == "softmax":
            chosen: Tensor = _LogSoftmaxEntry.apply(self.logits, self.log_probabilities, indices)
            return chosen
        return self._log_probabilities(self.logits.gather(-1, indices))[..., 0]

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        logits = at_least_fp32(logits)
        return logits.log_softmax(-1) if self.activation == "softmax" else nn.functional.logsigmoid(logits)

    @property
    def cxcywh(self) -> Tensor:
        """The boxes in at least fp32, `[L, B, Q, 4]`, without gradient: for costs.

        In memory each coordinate is contiguous, by image, layer and query. Costs of all targets then run over the
        queries of an image, which is several times faster than over the four coordinates of a box.
        """
        return self._cached(
            self.boxes,
            lambda boxes: at_least_fp32(boxes).permute(_COMPONENTS_FIRST).contiguous().permute(_COMPONENTS_LAST),
        )

    def _cached(self, source: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(source)` without gradient, computed again only after `source` was changed in place."""
        version = -1 if source.is_inference() else source._version
        entry = self._cache.get(id(source))
        if entry is None or entry[0] != version:
            entry = self._cache[id(source)] = version, compute(source.detach())
        return entry[1]

    @cached_property
    def _cache(self) -> dict[int, tuple[int, Tensor]]:
        return {}

    def layers(self, start: int, stop: int) -> Predictions:
        """The same predictions for the rows `start..stop-1` alone."""
        if (start, stop) == (0, self.num_layers):
            return self  # with its cache
        return self._map(lambda values: values[start:stop], self.rows[start:stop])

    def images(self, indices: Sequence[int]) -> Predictions:
        """The same predictions for some images alone."""
        return self._map(lambda values: values[:, indices], self.rows)

    def detach(self) -> Predictions:
        """The same predictions without gradient."""
        return self._map(Tensor.detach, self.rows)

    def _map(self, change: Callable[[Tensor], Tensor], rows: tuple[str, ...]) -> Predictions:
        extras = {name: change(values) for name, values in self.extras.items()}
        return Predictions(change(self.logits), change(self.boxes), self.activation, rows, extras)


@dataclass(frozen=True, eq=False)
class StepTotals:
    """Totals of an optimizer step over all processes and micro-batches.

    They are divided by the number of `processes`. `images` is the number of images, `labels [K]` the number of targets
    of each class. Class losses that are means over queries divide by the total weight of the step, which makes them
    independent of the split over processes.
    """

    images: float | Tensor
    labels: Tensor
    processes: int = 1

    @property
    def num_boxes(self) -> Tensor:
        """The number of targets, in the whole step at least 1, on the device without synchronization.

        facebookresearch/detr clamps after dividing by the processes: a single target of two processes then counts half.
        """
        return self.labels.sum().clamp(min=1 / self.processes)


@dataclass(frozen=True, eq=False)
class Targets:
    """The targets of a batch: `labels [P]`, `boxes [P, 4]` and the index of their image, `image [P]`.

    Boxes are cxcywh in fractions of the un-padded image. `counts` is the number of targets of each of the B images,
    as host integers. Box losses divide by `num_boxes`: the targets of the optimizer step over all processes and
    micro-batches, at least 1, divided by the number of processes (after facebookresearch/detr, `SetCriterion.forward`,
    extended to accumulation). Class losses divide by the totals of `step`, where given. By default `num_boxes` is
    that of the step, or without a step the number of targets of this batch. Raises TargetError if the shapes do not fit.
    """

    labels: Tensor
    boxes: Tensor
    image: Tensor
    counts: tuple[int, ...]
    num_boxes: float | Tensor = 0.0
    step: StepTotals | None = None

    def __post_init__(self) -> None:
        tensors = {"labels": self.labels, "boxes": self.boxes, "image": self.image}
        others = [f"{name} {type(value).__name__}" for name, value in tensors.items() if not isinstance(value, Tensor)]
        if others:
            raise TargetError(f"Targets: labels, boxes and image must be tensors, got {', '.join(others)}")
        total = sum(self.counts)
        if self.labels.shape != (total,) or self.boxes.shape != (total, 4) or self.image.shape != (total,):
            raise TargetError(
                f"Targets: counts {list(self.counts)} need labels [{total}], boxes [{total}, 4] and image [{total}], "
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
        """Build targets from the labels of transformers: `class_labels [T]` and `boxes [T, 4]` of each image.

        Raises TargetError with the image and the field of labels of another type, shape or device.
        """
        _check_labels(labels)
        counts = tuple(of_image["class_labels"].shape[0] for of_image in labels)
        image = torch.from_numpy(np.repeat(np.arange(len(counts)), counts))
        if not counts:
            return cls(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4), image, counts, num_boxes, step).to(device)
        return cls(
            torch.cat([of_image["class_labels"].long() for of_image in labels]).to(device, non_blocking=True),
            torch.cat([of_image["boxes"].reshape(-1, 4) for of_image in labels]).to(device, non_blocking=True),
            image.to(device, non_blocking=True),
            counts,
            num_boxes,
            step,
        )

    def queries(self, values: Tensor) -> Tensor:
        """The entries of `values [L, B, Q, C]` for the image of each target: `[P, L, Q, C]`, targets first.

        If all targets are in one image it is a view `[1, L, Q, C]`, which broadcasts.
        """
        occupied = [image for image, count in enumerate(self.counts) if count]
        if len(occupied) == 1:
            return values[:, occupied[0]][None]
        return values.permute(_COMPONENTS_FIRST).index_select(1, self.image).permute(1, 2, 3, 0)

    def image_of(self, target: int) -> int:
        """The image of a target, computed on the host."""
        return int(np.searchsorted(np.cumsum(self.counts), target, side="right"))

    def of_image(self, image: int) -> Targets:
        """The targets of one image as a batch of that image alone, divided by as many boxes as before."""
        start = sum(self.counts[:image])
        own = slice(start, start + self.counts[image])
        labels, boxes, index = self.labels[own], self.boxes[own], torch.zeros_like(self.image[own])
        return replace(self, labels=labels, boxes=boxes, image=index, counts=(self.counts[image],))

    def to(self, device: torch.device) -> Targets:
        """The same targets on another device."""
        return replace(self, labels=self.labels.to(device), boxes=self.boxes.to(device), image=self.image.to(device))


@dataclass(frozen=True, eq=False)
class Matches:
    """M pairs of a query and a target as four index vectors `[M]`, and the divisor of box losses, `[L]`.

    One-to-one, one-to-many and different matchings of layers are all represented by pairs.
    """

    layer: Tensor
    image: Tensor
    query: Tensor
    target: Tensor
    num_boxes: Tensor

    def predicted(self, values: Tensor) -> Tensor:
        """The entries of `values [L, B, Q, ...]` for the matched queries: `[M, ...]`."""
        # With one index instead of three the gradient on a GPU needs no sort of the indices.
        return values.flatten(0, 2).index_select(0, self._flat_index(*values.shape[1:3]))

    def assign(self, values: Tensor, of_pairs: Tensor) -> Tensor:
        """Write `of_pairs [M]` to the matched queries of `values [L, B, Q]`, in place, and return `values`."""
        values.view(-1).scatter_(0, self._flat_index(*values.shape[1:3]), of_pairs)
        return values

    def target_values(self, values: Tensor) -> Tensor:
        """The entries of `values [P, ...]` for the matched targets: `[M, ...]`."""
        return values.index_select(0, self.target)

    def per_layer(self, values: Tensor) -> Tensor:
        """The sum of `values [M]` over the pairs of each layer: `[L]`."""
        return values.new_zeros(len(self.num_boxes)).index_add(0, self.layer, values)

    def _flat_index(self, images: int, queries: int) -> Tensor:
        """The index of each matched query in the flattened `[L * B * Q]`: `[M]`."""
        index = self._flat_indices.get((images, queries))
        if index is None:
            index = (self.layer * images + self.image) * queries + self.query
            self._flat_indices[images, queries] = index
        return index

    @cached_property
    def _flat_indices(self) -> dict[tuple[int, int], Tensor]:
        return {}

    @staticmethod
    def join(parts: Sequence[Matches]) -> Matches:
        """Concatenate the matches of successive blocks of layers."""
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


# Rows of detections: a slice, or a mask `[N]` or indices in a tensor, an array or a list.
Rows: TypeAlias = slice | Tensor | np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """Detections in one image, best first.

    `boxes [N, 4]` are xyxy in pixels of the upright original, with `scores [N]` and `labels [N]`. `names` are those
    of the classes, in the order of their indices; without them a class is named by its index. Iteration gives `(box,
    score, name)`; an integer index gives one of these, a slice, mask `[N]` or indices give `Detections`. Raises
    InputError for tensors that do not fit, and for a label without a name.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    names: Sequence[str] = ()

    def __post_init__(self) -> None:
        tensors = {"boxes": self.boxes, "scores": self.scores, "labels": self.labels}
        others = [f"{name} {type(value).__name__}" for name, value in tensors.items() if not isinstance(value, Tensor)]
        if others:
            raise InputError(f"Detections: must be tensors, got {', '.join(others)}. Convert with torch.as_tensor")
        number = len(self.scores) if self.scores.ndim else 0
        if self.boxes.shape != (number, 4) or self.scores.ndim != 1 or self.labels.shape != (number,):
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in tensors.items())
            raise InputError(f"Detections: must be boxes [N, 4], scores [N] and labels [N], got {shapes}")
        if number and (self.labels.is_floating_point() or self.labels.dtype == torch.bool):
            raise InputError(f"Detections: labels must be integers, got {self.labels.dtype}")
        if self.names:
            self._check_labels(len(self.names), "names")

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        for box, score, label in zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True):
            yield Detection(tuple(box), score, self._name(label))

    @overload
    def __getitem__(self, index: int | np.integer[Any]) -> Detection: ...

    @overload
    def __getitem__(self, index: Rows) -> Detections: ...

    def __getitem__(self, index: SupportsIndex | Rows) -> Detection | Detections:
        if isinstance(index, slice):
            return self._select(np.arange(len(self))[index])
        if isinstance(index, Tensor) and index.ndim:
            return self._select(index.detach().cpu().numpy())
        if isinstance(index, np.ndarray) and index.ndim:
            return self._select(index)
        if isinstance(index, Sequence) and not isinstance(index, (str, bytes)):
            return self._select(np.asarray(index) if len(index) else np.zeros(0, np.int64))
        if isinstance(index, (bool, np.bool_)) or getattr(index, "dtype", None) == torch.bool:
            raise _index_error(index)
        try:
            number = as_integer(index)  # type: ignore[arg-type]
        except TypeError as error:
            raise _index_error(index) from error
        box: Any = tuple(self.boxes[number].tolist())
        return Detection(box, self.scores[number].item(), self._name(int(self.labels[number])))

    def _select(self, index: np.ndarray) -> Detections:
        """Return the rows of a mask `[N]` or of indices."""
        if index.ndim != 1 or index.dtype.kind not in "biu":
            raise _index_error(index)
        if index.dtype.kind == "b" and len(index) != len(self):
            raise IndexError(
                f"Detections: a mask must have {len(self)} values, one for each detection, got {len(index)}"
            )
        rows = torch.from_numpy(index.astype(bool if index.dtype.kind == "b" else np.int64)).to(self.scores.device)
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows])

    def __repr__(self) -> str:
        shown = [f"{name} {score:.2f} [{', '.join(f'{x:.0f}' for x in box)}]" for box, score, name in self[:_SHOWN]]
        more = [f"{len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return f"Detections({', '.join([*shown, *more])})"

    def above(self, threshold: float) -> Detections:
        """Return the detections with a score greater than the threshold."""
        return self[self.scores > threshold]

    def above_each(self, thresholds: Sequence[float]) -> Detections:
        """Return the detections with a score greater than the threshold of their class, by its index."""
        self._check_labels(len(thresholds), "thresholds")
        return self[self.scores > self.scores.new_tensor(thresholds)[self.labels]]

    def to_coco(self, *, image_id: int, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Return rows of COCO's results format: `image_id`, `category_id`, `bbox` (xywh, pixels) and `score`.

        `category_ids` has the id of each class, in the order of the class indices; without it the id is the index.
        """
        if category_ids is not None:
            self._check_labels(len(category_ids), "category_ids")
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

    def _check_labels(self, number: int, values: str) -> None:
        """Raise InputError unless each label is an index of so many values."""
        if not len(self):
            return
        low, high = (int(bound) for bound in torch.aminmax(self.labels))
        if low < 0 or high >= number:
            raise InputError(
                f"Detections: label {low if low < 0 else high} is beyond the {number} {values}. Give one for each class"
            )


def _check_labels(labels: object) -> None:
    """Raise TargetError unless labels are a list of mappings with tensors that fit, on one device."""
    if isinstance(labels, (Mapping, str, Tensor)) or not isinstance(labels, Sequence):
        raise TargetError(
            f"labels: must be a list with a mapping for each image, got a {type(labels).__name__}. "
            'Write [{"class_labels": ..., "boxes": ...}]'
        )
    faults = [(image, fault) for image, of_image in enumerate(labels) if (fault := _fault_of_labels(of_image))]
    if not faults:
        devices = [(image, str(values.device)) for image, own in enumerate(labels) for values in _fields_of(own)]
        faults = [
            (image, f"is on {device}, image 0 on {devices[0][1]}")
            for image, device in devices
            if device != devices[0][1]
        ]
    if faults:
        raise TargetError([f"labels: image {image} of the batch: {fault}" for image, fault in faults[:_SHOWN]])


def _fault_of_labels(labels: object) -> str | None:
    """Return what is wrong with the labels of an image, None for valid ones."""
    needed = "must have class_labels [T] and boxes [T, 4]"
    if not isinstance(labels, Mapping):
        return f"{needed} in a mapping, got a {type(labels).__name__}"
    if missing := [name for name in _LABELS if name not in labels]:
        return f"{needed}; {' and '.join(missing)} missing, there are {', '.join(map(str, labels)) or 'no keys'}"
    if others := [f"{name} {type(labels[name]).__name__}" for name in _LABELS if not isinstance(labels[name], Tensor)]:
        return f"{needed} as tensors, got {' and '.join(others)}. Convert with torch.as_tensor"
    classes, boxes = _fields_of(labels)
    if classes.ndim != 1:
        return f"class_labels must be [T], got {list(classes.shape)}"
    if len(classes) and (classes.dtype.is_floating_point or classes.dtype in (torch.bool, torch.complex64)):
        return f"class_labels must be integers, got {classes.dtype}"
    if boxes.shape != (len(classes), 4) and (len(classes) or boxes.numel()):
        return f"boxes must be [{len(classes)}, 4] beside {len(classes)} class_labels, got {list(boxes.shape)}"
    if len(classes) and not boxes.dtype.is_floating_point:
        return f"boxes must be cxcywh in fractions of the image, got {boxes.dtype}"
    return None


def _fields_of(labels: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    return labels["class_labels"], labels["boxes"]


def _index_error(index: object) -> TypeError:
    kind = f"{list(index.shape)} of {index.dtype}" if isinstance(index, (Tensor, np.ndarray)) else repr(index)
    return TypeError(
        f"Detections: an index must be an integer, a slice, a mask [N] or indices, got {kind}. "
        "A class is selected by a mask: detections[[name == CLASS for _, _, name in detections]]"
    )


class _LogSoftmaxEntry(torch.autograd.Function):
    """Entries of the log-softmax of `logits`, whose values `log_p` costs have computed already."""

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
        of_logits = log_p.exp().mul_(-of_class).scatter_add_(-1, classes, of_class)  # (1 at the class) - p
        return of_logits.to(ctx.dtype), None, None
