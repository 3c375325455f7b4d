"""The content of a report, and what a section of it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.metrics import EvaluationMetrics, MatchingMetrics, VocMetrics
from detr_ft.evaluation.query_statistics import QueryBoxes
from detr_ft.report.pictures import AnnotatedPhoto
from detr_ft.utils.speed import Speed


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """Everything measured on a split, with annotated photos and the boxes of the most used queries."""

    assessment: Assessment
    photos: Sequence[AnnotatedPhoto] = ()
    matching: MatchingMetrics | None = None
    queries: Sequence[QueryBoxes] = ()
    speed: Speed | None = None
    voc: VocMetrics | None = None

    @cached_property
    def metrics(self) -> EvaluationMetrics:
        """The content of `metrics.json`, except for the environment."""
        return replace(self.assessment.metrics(), voc=self.voc, matching=self.matching, speed=self.speed)


@dataclass(frozen=True, eq=False)
class RunReport:
    """The content of the page of a run or an evaluation. Sections without content are left out.

    `before` are metrics before training, as `coco_metrics` returns them; `log` are the rows of `log.jsonl`; `data` and
    `environment` are facts by name.
    """

    title: str
    verdict: str
    evaluation: EvaluationReport | None = None
    before: Mapping[str, Any] | None = None
    log: Sequence[Mapping[str, Any]] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    next_steps: Sequence[str] = ()
    criterion: str = ""
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page under a title.

    `context` returns the variables of the Jinja source `template`, or None to leave the section out. `markdown` returns the
    section for `report.md` and model cards, an empty text to leave it out.
    """

    title: str
    template: str
    context: Callable[[RunReport], dict[str, Any] | None]
    markdown: Callable[[EvaluationMetrics], str] = lambda metrics: ""
