"""Why a model finds nothing: the usual causes, looked for one after another in what it sees and how it was trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import iou, xywh_to_xyxy, xyxy_to_cxcywh
from detr_ft.data.box_format import FORMATS, XYWH
from detr_ft.models.predict import detect_split
from detr_ft.structures import Detections

NOTHING = 0.05  # an mAP below this is as good as none: boxes read as of another frame still hit now and then
_MOST = 64
_FOUND = 0.5  # an object is found by a box of this IoU, as PASCAL VOC has it
_FRESH = 0.5  # with fewer of its weights from a checkpoint a model starts anew
_SLOW, _USUAL, _FAST = (
    2e-6,
    1e-4,
    1e-3,
)  # rates of AdamW at which a transformer learns next to nothing, well, and comes apart

_OTHER_FORMATS = [format for format in FORMATS if format.unit == "pixels" and format != XYWH]
_ROWS_FIRST = "rows before columns (y_min, x_min, height, width)"
_READINGS = (*map(str, _OTHER_FORMATS), _ROWS_FIRST)


@dataclass
class Seen:
    """How the likeliest detections of some images compare with the truth, in pixels, as an evaluation compares them."""

    overlaps: list[float] = field(default_factory=list)  # of each object with the best of them, whatever its class
    scores: list[float] = field(default_factory=list)  # the highest of each image
    said: Counter[tuple[int, int]] = field(
        default_factory=Counter
    )  # of objects found: class, and class of the best box
    otherwise: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _READINGS})

    @property
    def overlap(self) -> float:
        """The mean of them; 0 without objects."""
        return fmean(self.overlaps) if self.overlaps else 0.0

    @property
    def accuracy(self) -> float:
        """The share of found objects whose class is right; 1 where nothing was found."""
        total = sum(self.said.values())
        return sum(count for (true, said), count in self.said.items() if true == said) / total if total else 1.0


@dataclass(frozen=True)
class Training:
    """What a run has done so far."""

    losses: Sequence[float]  # of the rows of its log
    steps: int
    rate: float  # the highest learning rate of its schedule
    loaded: float | None  # the share of the model's weights that came from a checkpoint, where that is known
    no_object: float | None  # the share of queries that say no-object


def see(model: Any, processor: Any, split: Dataset, batch_size: int) -> Seen:
    """What a model makes of up to 64 images of a split, evenly spread."""
    rows = torch.linspace(0, len(split) - 1, min(_MOST, len(split))).long().tolist()
    chosen = split.select(rows)
    seen = Seen()
    for found, objects in zip(detect_split(model, processor, chosen, batch_size), chosen["objects"], strict=True):
        _compare(seen, found, objects)
    return seen


def _compare(seen: Seen, found: Detections, objects: Mapping[str, Any]) -> None:
    kept = [place for place, crowd in enumerate(objects["iscrowd"]) if not crowd]
    seen.scores += found.scores[:1].tolist()
    if not kept or not len(found.scores):
        return
    truth = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)[kept]
    likeliest = slice(2 * len(kept))  # a hundred boxes hit everything; twice as many as there are objects don't
    boxes, labels = found.boxes[likeliest].cpu(), found.labels[likeliest].tolist()
    overlaps = _overlaps(xywh_to_xyxy(truth), boxes)
    best, which = overlaps.max(1)
    seen.overlaps += best.tolist()
    for place, overlap, box in zip(kept, best.tolist(), which.tolist(), strict=True):
        if overlap >= _FOUND:
            seen.said[objects["category"][place], labels[box]] += 1
    for name, xywh in _read_otherwise(truth).items():
        seen.otherwise[name] += _overlaps(xywh_to_xyxy(xywh), boxes).max(1).values.tolist()


def _read_otherwise(boxes: Tensor) -> dict[str, Tensor]:
    """The boxes `[T, 4]` as xywh, if their numbers were in another format of pixels than xywh."""
    pixels = np.ones((len(boxes), 2))  # fractions alone need the size of the image
    readings = {str(format): torch.from_numpy(format.to_xywh(boxes.numpy(), pixels)) for format in _OTHER_FORMATS}
    return readings | {_ROWS_FIRST: boxes[:, [1, 0, 3, 2]]}


def _overlaps(truth: Tensor, boxes: Tensor) -> Tensor:
    return iou(xyxy_to_cxcywh(truth)[:, None], xyxy_to_cxcywh(boxes)[None])


def diagnose(trained: Seen, held_out: Seen, names: Sequence[str], training: Training) -> list[str]:
    """The likely causes of an mAP of nothing, the likeliest first, each with what to do; at least one."""
    scores = _of_scores(trained, training)
    if trained.overlap >= _FOUND and trained.accuracy >= _FOUND:
        return scores + _of_the_split(trained, held_out, names)
    return [*scores, *_of_the_start(training), _of_the_rate(training)]


def _of_the_split(trained: Seen, held_out: Seen, names: Sequence[str]) -> list[str]:
    """What is wrong where training images are found and others are not."""
    if held_out.overlap >= _FOUND and held_out.accuracy < _FOUND:
        (true, said), count = max(
            ((pair, count) for pair, count in held_out.said.items() if pair[0] != pair[1]), key=lambda one: one[1]
        )
        of_class = sum(number for (one, _), number in held_out.said.items() if one == true)
        return [
            f"label map: boxes of the validation split are right and their classes are not: {count} of {of_class} {names[true]} are "
            f"found as {names[said]}. Are the classes of the two splits in the same order, and counted from the same number?"
        ]
    if held_out.overlap < 0.7 * trained.overlap:
        name, overlap = max(
            ((name, fmean(values or [0.0])) for name, values in held_out.otherwise.items()), key=lambda one: one[1]
        )
        what = f"box frame: training images are found (IoU {trained.overlap:.2f}) and those of the validation split are not ({held_out.overlap:.2f})"
        if overlap >= max(_FOUND, 1.3 * held_out.overlap):
            return [
                f"{what}, unless its boxes are {name}: then IoU is {overlap:.2f}. Give data.box_format, or mend them"
            ]
        return [f"{what}: its boxes or its images are of another kind. Look at them: detr-ft doctor"]
    return [
        f"the model finds boxes (IoU {held_out.overlap:.2f} on the validation split), with the right class for "
        f"{100 * held_out.accuracy:.0f} % of them, but not above its false alarms: train longer"
    ]


def _of_the_start(training: Training) -> list[str]:
    if training.loaded is None or training.loaded >= _FRESH:
        return []
    return [
        f"weights: {100 * training.loaded:.0f} % of the model came from a checkpoint. A DETR from random weights finds nothing for "
        f"thousands of steps (so far: {training.steps}); start from a checkpoint (model.checkpoint), or go on for long"
    ]


def _of_the_rate(training: Training) -> str:
    """What losses and learning rate say together."""
    losses, fastest = training.losses, training.rate
    part = max(1, len(losses) // 4)
    if len(losses) < 4:
        return f"too short: {training.steps} steps are too few to tell anything; train longer (train.num_train_epochs)"
    first, last = fmean(losses[:part]), fmean(losses[-part:])
    fell = f"the loss went from {first:.3g} to {last:.3g} in {training.steps} steps"
    if last > 0.8 * first and fastest >= _FAST:
        return f"learning rate: {fell} at {fastest:.3g}, which is too high for a transformer; try {_USUAL:g}"
    if last > 0.8 * first and fastest <= _SLOW:
        return f"learning rate: {fell} at {fastest:.3g}, at which next to nothing is learned; try {_USUAL:g}"
    if last > 0.95 * first:
        return (
            f"{fell}: nothing is learned. detr-ft check RECIPE --probe tells whether the model can learn a single batch"
        )
    return f"too short: {fell} and is falling; train longer (train.num_train_epochs)"


def _of_scores(trained: Seen, training: Training) -> list[str]:
    highest = fmean(trained.scores) if trained.scores else 0.0
    if training.no_object is None or training.no_object < 0.99 or trained.overlap < _FOUND:
        return []
    return [
        f"thresholds: boxes fit (IoU {trained.overlap:.2f} on training images) but {100 * training.no_object:.0f} % of the queries say no-object, and "
        f"the best score of an image is {highest:.2f}: nothing is above a threshold of 0.5. Lower eos_coef of the class loss"
    ]
