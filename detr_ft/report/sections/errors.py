"""Sections of the errors by kind, and of the classes that are confused."""

from __future__ import annotations

from typing import Any

from detr_ft.evaluation.metrics import ConfusionMatrix, EvaluationMetrics
from detr_ft.report.content import RunReport, Section
from detr_ft.utils.formatting import markdown_table, markdown_text, metric

_MEANINGS = {
    "classification": "right place, wrong class",
    "localisation": "right class, box off (IoU 0.1 to 0.5)",
    "both": "class and box off",
    "duplicate": "an object detected again",
    "background": "no object there",
    "missed": "objects without a detection",
}
_MAX_MATRIX_ROWS = 21  # background included
_MAX_MISTAKES = 20


def _errors(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or not report.evaluation.metrics.per_class:
        return None
    metrics = report.evaluation.metrics
    return {
        "map_50": metrics.map_50,
        "rows": [(kind, _MEANINGS[kind], error.count, error.map_50_lost) for kind, error in metrics.errors.items()],
    }


def _errors_markdown(metrics: EvaluationMetrics) -> str:
    rows = [
        (markdown_text(kind), f"{error.count:,}", metric(error.map_50_lost)) for kind, error in metrics.errors.items()
    ]
    if not rows:
        return ""
    table = markdown_table(("error", "count", "mAP50 lost"), rows)
    return f"As in TIDE (Bolya et al., ECCV 2020), at IoU 0.5, with the mAP50 that each kind costs.\n\n{table}"


ERRORS = Section(
    "Errors",
    """
<p class="note">As in TIDE (Bolya et al., ECCV 2020), at IoU 0.5: the number of errors, and the rise of mAP50 ({{ map_50 | metric }}) without them.</p>
<div class="card scroll">
<table>
<thead><tr><th>Error</th><th>Count</th><th>mAP50 lost</th></tr></thead>
<tbody>
{% for kind, meaning, count, cost in rows %}
<tr><th scope="row">{{ kind }}<small>{{ meaning }}</small></th><td>{{ count | thousands }}</td><td><span class="bar"><i style="width:{{ ([100, 100 * cost] | min) | round(1) }}%"></i></span>{{ cost | metric }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
""",
    _errors,
    _errors_markdown,
)


def _confusion(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or not report.evaluation.metrics.per_class:
        return None
    confusion = report.evaluation.metrics.confusion
    if confusion is None:
        return None
    whole = len(confusion.names) <= _MAX_MATRIX_ROWS
    return {"rows": _rows(confusion) if whole else [], "mistakes": [] if whole else _mistakes(confusion)}


def _rows(confusion: ConfusionMatrix) -> list[tuple[str, list[tuple[int, float]]]]:
    """Return each row of the matrix: its name, and its entries as (count, fraction of the row)."""
    return [
        (name, [(count, count / max(1, sum(row))) for count in row])
        for name, row in zip(confusion.names, confusion.matrix, strict=True)
    ]


def _mistakes(confusion: ConfusionMatrix) -> list[tuple[str, str, int]]:
    """Return the most frequent mistakes as (class of the object, detected class, count)."""
    mistakes = [
        (count, name, detected)
        for index, (name, row) in enumerate(zip(confusion.names, confusion.matrix, strict=True))
        for other, (detected, count) in enumerate(zip(confusion.names, row, strict=True))
        if index != other and count
    ]
    return [(name, detected, count) for count, name, detected in sorted(mistakes, reverse=True)[:_MAX_MISTAKES]]


CONFUSION = Section(
    "Confusion",
    """
<p class="note">Rows: class of the object; columns: detected class, above the thresholds of the classes. The color is the fraction of the row.</p>
<div class="card scroll">
{% if rows %}
<table class="matrix">
<thead><tr><th></th>{% for name, _ in rows %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for name, row in rows %}
<tr><th scope="row">{{ name }}</th>{% for count, fraction in row %}<td style="--fraction:{{ fraction | round(3) }}"{% if not count %} class="zero"{% endif %}>{{ count }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
{% else %}
<table>
<thead><tr><th>Object</th><th>Detected</th><th>Count</th></tr></thead>
<tbody>
{% for name, detected, count in mistakes %}
<tr><th scope="row">{{ name }}</th><td>{{ detected }}</td><td>{{ count }}</td></tr>
{% endfor %}
</tbody>
</table>
{% endif %}
</div>
""",
    _confusion,
)
