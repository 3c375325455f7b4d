"""A model on a split, looked at from all sides: what the report of a run and that of an evaluation are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import Tensor

from detr_ft.boxes import xywh_to_xyxy
from detr_ft.criterion import SetCriterion
from detr_ft.data import class_names, open_image
from detr_ft.data.box_frame import as_tensors
from detr_ft.data.schema import provenance
from detr_ft.evaluation.arrays import mark_split
from detr_ft.evaluation.assessment import Assessment, assess
from detr_ft.evaluation.example_selection import picks
from detr_ft.evaluation.query_statistics import Assignments
from detr_ft.evaluation.thresholds import Operating
from detr_ft.evaluation.voc import voc_metrics
from detr_ft.models.benchmark import Speed, measure
from detr_ft.models.predict import ask_split
from detr_ft.report.shots import Outline, Shot
from detr_ft.structures import Detections
from detr_ft.utils.drawing import class_colour

_ASKED = 500  # images, at most, whose matching is looked at
_QUERIES = 18
_OF_EACH = 6  # pictures under a heading
_HEADINGS = {
    "worst": "Worst",
    "false_alarms": "False alarms",
    "missed": "Missed objects",
    "best": "Best",
    "others": "Others",
}


@dataclass(frozen=True, eq=False)
class Scored:
    """What there is to say. `matching` and `queries` are `Assignments.summary` and `.places`, `voc` is `voc_metrics`."""

    assessment: Assessment
    shots: list[Shot]
    matching: dict[str, Any] | None = None
    queries: Sequence[tuple[int, int, Tensor]] = ()
    speed: Speed | None = None
    voc: dict[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Any]:
        """By name, what a page takes of it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "voc"}


def score(split: Dataset, detections: Sequence[Detections], trained_on: Mapping[str, int] | None = None) -> Scored:
    """What detections say, whoever made them; `trained_on` counts the boxes of each class in the training data."""
    assessment = assess(mark_split(split, detections), trained_on)
    return Scored(assessment, shots_of(split, detections, assessment), voc=voc_metrics(split, detections))


def score_model(
    model: Any,
    processor: Any,
    criterion: SetCriterion,
    split: Dataset,
    detections: Sequence[Detections],
    hardware: str,
    batch_size: int,
    trained_on: Mapping[str, int] | None = None,
) -> Scored:
    """`score`, and what the matching of the criterion and a stop-watch say of the model that made the detections."""
    told = score(split, detections, trained_on)
    gathered = Assignments(criterion.matcher)
    asked = split.select(range(min(_ASKED, len(split))))
    for predictions, targets in ask_split(model, processor, criterion, asked, batch_size):
        gathered.add(predictions, targets)
    speed = speed_on(model, processor, split, hardware, batch_size)
    return replace(told, matching=gathered.summary(), queries=gathered.places(_QUERIES), speed=speed)


def speed_on(model: Any, processor: Any, split: Dataset, hardware: str, batch_size: int) -> Speed:
    """How fast a model is on the first images of a split."""
    images = [open_image(row["image"]) for row in islice(split, batch_size)]
    return measure(model, processor, images, batch_size, hardware)


def shots_of(split: Dataset, detections: Sequence[Detections], told: Assessment) -> list[Shot]:
    """The images that tell most, with the truth and what was found above the best thresholds."""
    rows = np.argsort(np.asarray(split["image_id"]), kind="stable")  # images are marked in the order of their ids
    chosen = picks(told.errors, told.thresholds, _OF_EACH)
    return [
        _shot(
            _HEADINGS[kind], split[int(rows[image])], class_names(split), detections[int(rows[image])], told.thresholds
        )
        for kind, images in chosen.items()
        for image in images
    ]


def _shot(
    heading: str, row: Mapping[str, Any], names: Sequence[str], found: Detections, thresholds: Mapping[str, Operating]
) -> Shot:
    boxes, _ = as_tensors(row["objects"])
    truth = [
        _outline(box, label, names) for box, label in zip(xywh_to_xyxy(boxes), row["objects"]["category"], strict=True)
    ]
    said = [
        _outline(box, label, names, score)
        for box, label, score in zip(found.boxes, found.labels.tolist(), found.scores.tolist(), strict=True)
        if names[label] in thresholds and score > thresholds[names[label]].threshold
    ]
    name = Path(provenance(row["image"], row["image_id"])).name
    caption = f"{name}: {len(truth)} there, {len(said)} found"
    return Shot(heading, caption, open_image(row["image"]), truth, said)


def _outline(box: Tensor, label: int, names: Sequence[str], score: float | None = None) -> Outline:
    x0, y0, x1, y1 = (float(side) for side in box)
    return Outline((x0, y0, x1, y1), names[label], "#{:02x}{:02x}{:02x}".format(*class_colour(label)), score)
