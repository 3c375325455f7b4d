"""Section of the matching: of each decoder layer, and of the queries that match the most objects."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup
from torch import Tensor

from detr_ft.report.content import RunReport, Section

_MAX_DOTS = 150
_SMALL_SIDE = 0.1  # fraction of the image's side


def _matching(report: RunReport) -> dict[str, Any] | None:
    evaluation = report.evaluation
    if evaluation is None or evaluation.matching is None:
        return None
    return {
        "matching": evaluation.matching,
        "queries": [(use.query, use.matched, Markup(query_map(use.boxes))) for use in evaluation.queries],
    }


def query_map(boxes: Tensor) -> str:
    """Return an `<svg>` with the centers of up to 150 boxes `[I, 4]` (cxcywh, fractions).

    Green: small; red: large and wide; blue: large and tall, as in Carion et al. (ECCV 2020), figure 7.
    """
    step = max(1, len(boxes) // _MAX_DOTS)
    dots = "".join(
        f'<circle class="{_shape(width, height)}" cx="{100 * x:.1f}" cy="{100 * y:.1f}" r="1.6"/>'
        for x, y, width, height in boxes[::step][:_MAX_DOTS].tolist()
    )
    return f'<svg viewBox="0 0 100 100" aria-hidden="true"><rect class="edge" width="100" height="100"/>{dots}</svg>'


def _shape(width: float, height: float) -> str:
    if (width * height) ** 0.5 < _SMALL_SIDE:
        return "small"
    return "wide" if width >= height else "tall"


MATCHING = Section(
    "Matching",
    """
<p class="note">Queries matched to {{ matching.objects | thousands }} objects as in training. {{ matching.queries_used }} of {{ matching.queries }} queries matched an object; {{ matching.unreached | thousands }} objects have no query with an IoU of 0.5{% if matching.beyond %}, and {{ matching.beyond }} objects exceed the number of queries{% endif %}. Duplicates: queries with the right class, a score above 0.5 and an IoU of 0.5, for each object that has one; 1 is best.</p>
<div class="card scroll">
<table>
<thead><tr><th>Decoder layer</th><th>IoU of pairs</th><th>Class right</th><th>As in the last layer</th><th>Duplicates</th></tr></thead>
<tbody>
{% for layer in matching.layers %}
<tr><th scope="row">{{ loop.index }}</th><td>{{ layer.iou | metric }}</td><td>{{ layer.right | percent }}</td><td>{{ layer.settled | percent }}</td><td>{{ "%.2f" | format(layer.answers_an_object) }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
{% if queries %}
<h3>Boxes of the most used queries</h3>
<p class="note">With the number of objects that each query matched. Each dot is the center of a box in one image: <span class="key small">small</span>, <span class="key wide">large and wide</span>, <span class="key tall">large and tall</span>.</p>
<div class="queries">
{% for query, matched, svg in queries %}
<figure class="card">{{ svg }}<figcaption>query {{ query }}: {{ matched }}</figcaption></figure>
{% endfor %}
</div>
{% endif %}
""",
    _matching,
)
