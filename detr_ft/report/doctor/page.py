"""The doctor's report: one self-contained HTML file that says what is wrong, why it matters and how to mend it."""

from __future__ import annotations

from pathlib import Path

from datasets import DatasetDict
from jinja2 import Environment, StrictUndefined

from detr_ft.data.doctor.diagnosis import Diagnosis
from detr_ft.data.doctor.finding import by_kind
from detr_ft.data.doctor.finding_kinds import KINDS
from detr_ft.report.doctor.text import leakage, sorts, verdict
from detr_ft.report.doctor.thumbnails import MAX_EXAMPLES, thumbnails
from detr_ft.utils.files import check_new_file, writing

_PLACES = 100  # in the table of a kind
_TEXT = 600  # characters of a place or a message


def write_report(diagnosis: Diagnosis, data: DatasetDict, file: Path) -> None:
    """Write the report to a new file; raises InputError where that can't be."""
    check_new_file(file)
    page = render_report(diagnosis, data)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(page, encoding="utf-8")


def render_report(diagnosis: Diagnosis, data: DatasetDict) -> str:
    """The report as HTML: nothing is fetched, under 5 MB, light and dark, from 360 px on."""
    template = Path(__file__).with_name("page.html.jinja").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(cut=_cut, number=_number)
    kinds = by_kind(diagnosis.findings)
    pictures = thumbnails(kinds, data)
    most = max((count for one in diagnosis.figures.values() for count in one.boxes_per_class.values()), default=0)
    return environment.from_string(template).render(
        diagnosis=diagnosis,
        verdict=verdict(diagnosis).removesuffix(" (exit status 2)"),
        leakage=list(leakage(diagnosis)),
        classes=list(next(iter(diagnosis.splits.values())).boxes_per_class),
        most_boxes=max(most, 1),
        kinds=[
            (
                kind,
                KINDS[kind],
                len(some),
                list(sorts(some)),
                some[:_PLACES],
                [(one, pictures[id(one)]) for one in some[:MAX_EXAMPLES] if id(one) in pictures],
            )
            for kind, some in kinds.items()
        ],
    )


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
