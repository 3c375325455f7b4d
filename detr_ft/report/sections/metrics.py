"""Sections of the metrics: all images, classes, errors, confusion, and slices of images and classes."""

from __future__ import annotations

from typing import Any

from detr_ft.evaluation.metrics import HEADINGS, SUMMARY_METRICS, TABLE_METRICS, ConfusionMatrix, EvaluationMetrics
from detr_ft.report.content import RunReport, Section
from detr_ft.report.summary import remarks
from detr_ft.utils.formatting import markdown_table, markdown_text, metric

_MEANINGS = {
    "map": "average precision over IoU .50 to .95",
    "map_50": "at IoU .50",
    "map_75": "at IoU .75",
    "map_small": "objects under 32² px",
    "map_medium": "32² to 96² px",
    "map_large": "over 96² px",
    "mar_1": "average recall, 1 detection an image",
    "mar_10": "10 detections an image",
    "mar_100": "100 detections an image",
}
_KINDS = {
    "classification": "right place, wrong class",
    "localisation": "right class, box off (IoU 0.1 to 0.5)",
    "both": "class and box off",
    "duplicate": "an object detected again",
    "background": "no object there",
    "missed": "objects without a detection",
}
_MAX_MATRIX_ROWS = 21  # background included
_MAX_MISTAKES = 20


def _metrics(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None:
        return None
    metrics, before = report.evaluation.metrics, report.before
    after = metrics.coco()
    return {
        "images": metrics.images,
        "compared": bool(before),
        "rows": [
            {
                "heading": HEADINGS[name],
                "meaning": _MEANINGS[name],
                "before": before.get(name) if before else None,
                "after": after[name],
                "interval": metrics.intervals[name],
            }
            for name in TABLE_METRICS
        ],
    }


def _metrics_markdown(metrics: EvaluationMetrics) -> str:
    coco, intervals = metrics.coco(), metrics.intervals
    on_images = "" if metrics.images is None else f" on {metrics.images:,} images"
    rows = []
    for name in SUMMARY_METRICS:
        interval = intervals.get(name)
        between = f"{interval.low:.3f} to {interval.high:.3f}" if interval else "–"
        rows.append((HEADINGS[name], metric(coco[name], "–"), between))
    points = "".join(f"- {markdown_text(remark)}\n" for remark in remarks(metrics))
    return "\n".join(
        [
            f"COCO protocol{on_images}; intervals of 95%, over images.\n",
            markdown_table(("metric", "value", "interval"), rows),
            *filter(None, [points]),
        ]
    )


METRICS = Section(
    "Metrics",
    """
<p class="note">COCO protocol on {{ images | thousands }} images; 1 is perfect, – means that there is nothing to count. Intervals are of 95&nbsp;%, over images.</p>
<div class="card scroll">
<table>
<thead><tr><th>Metric</th>{% if compared %}<th>Before</th>{% endif %}<th>{{ "After" if compared else "Value" }}</th><th>Interval</th>{% if compared %}<th>Change</th>{% endif %}</tr></thead>
<tbody>
{% for row in rows %}
<tr{% if loop.first %} class="main"{% endif %}><th scope="row">{{ row.heading }}<small>{{ row.meaning }}</small></th>
{%- if compared %}<td>{{ row.before | metric }}</td>{% endif %}<td>{{ row.after | metric }}</td>
{%- if row.interval %}<td><small>{{ row.interval.low | metric }} to {{ row.interval.high | metric }}</small></td>{% else %}<td>–</td>{% endif %}
{%- if compared %}<td{% if row.after is not none and row.before is not none and row.after > row.before %} class="up"{% endif %}>{{ row.before | change(row.after) }}</td>{% endif %}</tr>
{% endfor %}
</tbody>
</table>
</div>
""",
    _metrics,
    _metrics_markdown,
)


def _classes(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or not report.evaluation.metrics.per_class:
        return None
    metrics = report.evaluation.metrics
    return {"rows": [(name, row, metrics.thresholds[name]) for name, row in metrics.per_class.items()]}


def _classes_markdown(metrics: EvaluationMetrics) -> str:
    rows = []
    for name, row in metrics.per_class.items():
        choice = metrics.thresholds.get(name)
        scores = (choice.precision, choice.recall, choice.f1) if choice else (None, None, None)
        values = (row.map, row.map_50, row.mar_100)
        threshold = f"{choice.threshold:.2f}" if choice else "–"
        rows.append(
            (
                markdown_text(name),
                f"{row.count:,}",
                *(metric(value, "–") for value in values),
                threshold,
                *(metric(score, "–") for score in scores),
            )
        )
    if not rows:
        return ""
    heads = ("class", "objects", "mAP", "mAP50", "mAR100", "threshold", "precision", "recall", "F1")
    return f"Precision, recall and F1 at the threshold of the class, at IoU 0.5.\n\n{markdown_table(heads, rows)}"


CLASSES = Section(
    "Classes",
    """
<p class="note">Precision, recall and F1 at the threshold of the class with the best F1, at IoU 0.5. Click a heading to sort.</p>
<div class="card scroll">
<table class="sortable">
<thead><tr>{% for name in ("Class", "Objects", "mAP", "mAP50", "Threshold", "Precision", "Recall", "F1") %}<th aria-sort="none"><button type="button">{{ name }}</button></th>{% endfor %}</tr></thead>
<tbody>
{% for name, row, choice in rows %}
<tr><th scope="row">{{ name }}</th><td data-value="{{ row.count }}">{{ row.count | thousands }}</td><td data-value="{{ row.map or 0 }}"><span class="bar"><i style="width:{{ (100 * (row.map or 0)) | round(1) }}%"></i></span>{{ row.map | metric }}</td><td>{{ row.map_50 | metric }}</td><td>{{ "%.2f" | format(choice.threshold) }}</td><td>{{ choice.precision | metric }}</td><td>{{ choice.recall | metric }}</td><td>{{ choice.f1 | metric }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
""",
    _classes,
    _classes_markdown,
)


def _errors(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or not report.evaluation.metrics.per_class:
        return None
    metrics = report.evaluation.metrics
    return {
        "map_50": metrics.map_50,
        "rows": [(kind, _KINDS[kind], error.count, error.map_50_lost) for kind, error in metrics.errors.items()],
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
    return {"rows": _matrix_rows(confusion) if whole else [], "mistakes": [] if whole else _mistakes(confusion)}


def _matrix_rows(confusion: ConfusionMatrix) -> list[tuple[str, list[tuple[int, float]]]]:
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


def _slices(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None:
        return None
    metrics = report.evaluation.metrics
    crowding = [(name, part.images, part.map, part.map_50) for name, part in metrics.by_crowding.items()]
    frequency = [(name, part.classes, part.map, part.map_50) for name, part in metrics.by_frequency.items()]
    tables: list[tuple[str, str, list[Any]]] = [
        ("Images by their number of objects", "Images", crowding),
        ("Classes by their number of boxes in the training data", "Classes", frequency),
    ]
    shown = [(title, unit, rows) for title, unit, rows in tables if len(rows) > 1]
    return {"tables": shown} if shown else None


SLICES = Section(
    "Slices",
    """
{% for title, unit, rows in tables %}
<h3>{{ title }}</h3>
<div class="card scroll">
<table>
<thead><tr><th></th><th>{{ unit }}</th><th>mAP</th><th>mAP50</th></tr></thead>
<tbody>
{% for name, count, map, map_50 in rows %}
<tr><th scope="row">{{ name }}</th><td>{{ count }}</td><td>{{ map | metric }}</td><td>{{ map_50 | metric }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
""",
    _slices,
)
