"""Sections of the metrics: of all images, of each class, and of slices of images and classes."""

from __future__ import annotations

from typing import Any

from detr_ft.evaluation.metrics import HEADINGS, SUMMARY_METRICS, TABLE_METRICS, EvaluationMetrics
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
            f"COCO protocol{on_images}; intervals of 95 %, over images.\n",
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
