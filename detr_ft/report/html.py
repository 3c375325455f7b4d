"""The page of a run or an evaluation: one self-contained HTML file that says what came of it, in words, figures and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.metrics import HEADINGS, MEANINGS, TABLE_METRICS, MatchingMetrics
from detr_ft.report.charts import calibration_chart, curves, f1_chart, line_chart, precision_chart
from detr_ft.report.confusion_table import Confused, confused
from detr_ft.report.pictures import AnnotatedPhoto, shown
from detr_ft.report.query_map import query_map
from detr_ft.report.remarks import remarks
from detr_ft.utils.formatting import change, metric, percent
from detr_ft.utils.speed import Speed

_ERRORS = {
    "classification": "right place, wrong class",
    "localisation": "right class, place off (IoU 0.1 to 0.5)",
    "both": "class and place off",
    "duplicate": "an object found again",
    "background": "nothing there",
    "missed": "objects that nothing points at",
}


@dataclass(frozen=True)
class RunReport:
    """What the page tells. Everything but title and verdict may be left out, and its section is then missing.

    `before` holds figures as `coco_metrics` gives them, `log` the rows of `log.jsonl`, `matching` and `queries` what
    `Assignments.summary` and `.places` say. `data` and `environment` are facts by name.
    """

    title: str
    verdict: str
    assessment: Assessment | None = None
    before: Mapping[str, Any] | None = None
    log: Sequence[Mapping[str, Any]] = ()
    shots: Sequence[AnnotatedPhoto] = ()
    matching: MatchingMetrics | None = None
    queries: Sequence[tuple[int, int, Tensor]] = ()
    speed: Speed | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    criterion: str = ""
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


def render_page(summary: RunReport) -> str:
    """The page as HTML: nothing is fetched, under 5 MB, light and dark, from 390 px on."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figure=partial(metric, missing="–"), change=change, percent=percent)
    told = summary.assessment
    return environment.get_template("page.html.jinja").render(
        summary=summary,
        told=told,
        figures=[(key, HEADINGS[key], MEANINGS[key]) for key in TABLE_METRICS],
        errors=[(kind, meaning, told.errors.counts[kind], told.costs[kind]) for kind, meaning in _ERRORS.items()]
        if told
        else [],
        remarks=remarks(told) if told else [],
        charts=[
            (name, first, last, Markup(line_chart(name, xs, ys))) for name, xs, ys, first, last in curves(summary.log)
        ],
        answers=_answers(told) if told else [],
        confused=confused(told.marks.names, told.confusion) if told else Confused([], []),
        shots=shown(summary.shots),
        queries=[(query, taken, Markup(query_map(boxes))) for query, taken, boxes in summary.queries],
    )


def _answers(told: Assessment) -> list[tuple[str, str, Markup]]:
    """Charts of what the scores are worth: name, what it shows, the chart."""
    if not told.figures["per_class"]:
        return []
    return [
        (
            "Precision over recall",
            "mean of the classes at IoU 0.5 (thick) and 0.75; faint: each class at 0.5, named at the pointer",
            Markup(precision_chart(told.marks)),
        ),
        ("F1 over the threshold", "of all classes together, at IoU 0.5", Markup(f1_chart(told.marks))),
        ("Calibration", "the share that is right, by score", Markup(calibration_chart(told.calibration))),
    ]
