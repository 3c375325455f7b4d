"""A model on a split, looked at from all sides: what the report of a run and that of an evaluation are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any

from datasets import Dataset
from torch import Tensor

from detr_ft.criterion import SetCriterion
from detr_ft.data import open_image
from detr_ft.evaluation.arrays import mark_split
from detr_ft.evaluation.assessment import Assessment, assess
from detr_ft.evaluation.metrics import EvaluationMetrics, MatchingMetrics, VocMetrics
from detr_ft.evaluation.query_statistics import Assignments
from detr_ft.evaluation.voc import voc_metrics
from detr_ft.models.benchmark import measure
from detr_ft.models.predict import predict_split_raw
from detr_ft.report.pictures import AnnotatedPhoto, shots_of
from detr_ft.structures import Detections
from detr_ft.utils.speed import Speed

_ASKED = 500  # images, at most, whose matching is looked at
_QUERIES = 18


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """What there is to say. `matching` and `queries` are `Assignments.summary` and `.places`, `voc` is `voc_metrics`."""

    assessment: Assessment
    shots: list[AnnotatedPhoto]
    matching: MatchingMetrics | None = None
    queries: Sequence[tuple[int, int, Tensor]] = ()
    speed: Speed | None = None
    voc: VocMetrics | None = None

    def metrics(self, environment: Mapping[str, str]) -> EvaluationMetrics:
        """The content of `metrics.json`, but for what training took."""
        return replace(
            self.assessment.metrics(),
            voc=self.voc,
            matching=self.matching,
            speed=self.speed,
            environment=dict(environment),
        )

    @property
    def parts(self) -> dict[str, Any]:
        """By name, what a page takes of it."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "voc"}


def score(
    split: Dataset, detections: Sequence[Detections], trained_on: Mapping[str, int] | None = None
) -> EvaluationReport:
    """What detections say, whoever made them; `trained_on` counts the boxes of each class in the training data."""
    assessment = assess(mark_split(split, detections), trained_on)
    return EvaluationReport(assessment, shots_of(split, detections, assessment), voc=voc_metrics(split, detections))


def collect_report(
    model: Any,
    processor: Any,
    criterion: SetCriterion,
    split: Dataset,
    detections: Sequence[Detections],
    hardware: str,
    batch_size: int,
    trained_on: Mapping[str, int] | None = None,
) -> EvaluationReport:
    """`score`, and what the matching of the criterion and a stop-watch say of the model that made the detections."""
    told = score(split, detections, trained_on)
    gathered = Assignments(criterion.matcher)
    asked = split.select(range(min(_ASKED, len(split))))
    for predictions, targets in predict_split_raw(model, processor, criterion, asked, batch_size):
        gathered.add(predictions, targets)
    speed = speed_on(model, processor, split, hardware, batch_size)
    return replace(told, matching=gathered.summary(), queries=gathered.places(_QUERIES), speed=speed)


def speed_on(model: Any, processor: Any, split: Dataset, hardware: str, batch_size: int) -> Speed:
    """How fast a model is on the first images of a split."""
    images = [open_image(row["image"]) for row in islice(split, batch_size)]
    return measure(model, processor, images, batch_size, hardware)
