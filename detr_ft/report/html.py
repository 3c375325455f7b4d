"""The page of a run or an evaluation: one self-contained HTML file that says what came of it, in words, figures and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.metrics import MatchingMetrics
from detr_ft.report.charts import calibration_chart, curves, f1_chart, line_chart, precision_chart
from detr_ft.report.confusion_table import Confused, confused
from detr_ft.report.pictures import AnnotatedPhoto, shown
from detr_ft.report.query_map import query_map
from detr_ft.report.remarks import remarks
from detr_ft.utils.speed import Speed

_FIGURES = {
    "map": ("mAP", "average precision over IoU .50 to .95"),
    "map_50": ("mAP50", "at IoU .50"),
    "map_75": ("mAP75", "at IoU .75"),
    "map_small": ("mAP small", "objects under 32² px"),
    "map_medium": ("mAP medium", "32² to 96² px"),
    "map_large": ("mAP large", "over 96² px"),
    "mar_1": ("mAR1", "average recall, 1 detection an image"),
    "mar_10": ("mAR10", "10 detections an image"),
    "mar_100": ("mAR100", "100 detections an image"),
}
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
    environment.filters.update(figure=_figure, change=_change, percent=_percent)
    told = summary.assessment
    return environment.get_template("page.html.jinja").render(
        summary=summary,
        told=told,
        figures=[(key, *words) for key, words in _FIGURES.items()],
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


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f}\u00a0%"


def _change(before: float | None, after: float | None) -> str:
    return "–" if before is None or after is None else f"{after - before:+.3f}".replace("-", "−")
