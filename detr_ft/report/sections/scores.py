"""Section of the scores: precision over recall, F1 over the threshold, calibration."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from detr_ft.report.charts import calibration_chart, f1_chart, precision_chart
from detr_ft.report.content import RunReport, Section


def _scores(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or not report.evaluation.metrics.per_class:
        return None
    assessment = report.evaluation.assessment
    return {
        "charts": [
            (
                "Precision over recall",
                "mean of the classes at IoU 0.5 (thick) and 0.75; faint: each class at 0.5, its name at the pointer",
                Markup(precision_chart(assessment.matches)),
            ),
            ("F1 over the threshold", "of all classes together, at IoU 0.5", Markup(f1_chart(assessment.matches))),
            (
                "Calibration",
                "fraction of correct detections by score",
                Markup(calibration_chart(assessment.calibration)),
            ),
        ]
    }


SCORES = Section(
    "Scores",
    """
<div class="charts">
{% for name, meaning, svg in charts %}
<figure class="card"><figcaption class="tall">{{ name }}<span>{{ meaning }}</span></figcaption>{{ svg }}</figure>
{% endfor %}
</div>
""",
    _scores,
)
