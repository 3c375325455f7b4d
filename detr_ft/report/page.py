"""The report of a run or an evaluation: one self-contained HTML file, and its metrics as Markdown."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from detr_ft.evaluation.metrics import EvaluationMetrics
from detr_ft.report.content import RunReport
from detr_ft.report.sections.metrics import CLASSES, CONFUSION, ERRORS, METRICS, SLICES
from detr_ft.report.sections.photos import PHOTOS
from detr_ft.report.sections.run import MATCHING, SETUP, SPEED, TRAINING
from detr_ft.report.sections.scores import SCORES
from detr_ft.report.summary import remarks
from detr_ft.utils.formatting import change, metric, percent, quantity

SECTIONS = (
    METRICS,
    CLASSES,
    ERRORS,
    CONFUSION,
    SCORES,
    SLICES,
    PHOTOS,
    MATCHING,
    TRAINING,
    SPEED,
    SETUP,
)


@cache
def page_environment() -> Environment:
    """Return the templates and filters that all pages share."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        metric=partial(metric, missing="–"), change=change, percent=percent, quantity=quantity, thousands="{:,}".format
    )
    return environment


def render_page(report: RunReport) -> str:
    """Return the page as HTML.

    It loads nothing, is under 5 MB, light and dark, and fits windows from 390 px on.
    """
    environment = page_environment()
    contexts = [(section, section.context(report)) for section in SECTIONS]
    return environment.get_template("page.html.jinja").render(
        report=report,
        remarks=remarks(report.evaluation.metrics) if report.evaluation else [],
        sections=[
            (section.title, Markup(environment.from_string(section.template).render(context)))
            for section, context in contexts
            if context is not None
        ],
    )


def render_markdown(metrics: EvaluationMetrics) -> str:
    """Return the sections that have a Markdown form, under headings of the third level."""
    texts = [(section.title, section.markdown(metrics)) for section in SECTIONS]
    return "\n".join(f"### {title}\n\n{text}" for title, text in texts if text)
