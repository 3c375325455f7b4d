"""Sections of a model and its training: matching, curves, speed and size, setup."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup
from torch import Tensor

from detr_ft.evaluation.metrics import HEADINGS
from detr_ft.report.charts import line_chart
from detr_ft.report.content import RunReport, Section

_MAX_DOTS = 150
_SMALL_SIDE = 0.1  # fraction of the image's side
Curve = tuple[str, list[float], list[float]]


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


def _training(report: RunReport) -> dict[str, Any] | None:
    charts = [(name, ys[0], ys[-1], Markup(line_chart(name, xs, ys))) for name, xs, ys in _curves(report.log)]
    return {"charts": charts} if charts else None


def _curves(log: Sequence[Mapping[str, Any]]) -> Iterator[Curve]:
    """Yield name, steps and values of each curve in a log: mAP, loss and its terms, learning rate.

    Terms are those of the final decoder layer, unweighted; those of other layers (`loss_ce_0`) are in the log only.
    """
    terms = dict.fromkeys(key for row in log for key in row if re.fullmatch(r"loss_(?!\w*_\d+$|\d+$)\w+", key))
    names = {
        **{key: HEADINGS[key] for key in ("map", "map_50")},
        "loss": "loss",
        **{term: term for term in terms},
        "learning_rate": "learning rate",
    }
    for key, name in names.items():
        points = [(row["step"], row[key]) for row in log if _is_number(row.get(key)) and _is_number(row.get("step"))]
        if points:
            yield name, [float(x) for x, _ in points], [float(y) for _, y in points]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


TRAINING = Section(
    "Training",
    """
<p class="note">Over steps. loss is the minimized sum: each term times its weight, over all decoder layers. The terms are unweighted, of the final layer.</p>
<div class="charts">
{% for name, first, last, svg in charts %}
<figure class="card"><figcaption>{{ name }}<span>{{ "%.3g" | format(first) }} → {{ "%.3g" | format(last) }}</span></figcaption>{{ svg }}</figure>
{% endfor %}
</div>
""",
    _training,
)


def _speed(report: RunReport) -> dict[str, Any] | None:
    if report.evaluation is None or report.evaluation.speed is None:
        return None
    return {"speed": report.evaluation.speed}


SPEED = Section(
    "Speed and size",
    """
<p class="note">From a decoded image to its boxes, warm, on {{ speed.hardware }}, with images of {{ speed.pixels[1] }} × {{ speed.pixels[0] }} pixels after resizing.</p>
<div class="card"><table class="facts">
<tr><th scope="row">one image</th><td>{{ "%.1f" | format(speed.latency) }} ms (the middle 80%: {{ "%.1f" | format(speed.latency_spread[0]) }} to {{ "%.1f" | format(speed.latency_spread[1]) }})</td></tr>
<tr><th scope="row">batches of {{ speed.batch }}</th><td>{{ "%.1f" | format(speed.throughput) }} images/s</td></tr>
<tr><th scope="row">parameters</th><td>{{ speed.parameters | thousands }}</td></tr>
<tr><th scope="row">operations</th><td>{{ "%.2f" | format(speed.flops / 1e9) }} GFLOP an image, multiplications and additions counted apart</td></tr>
{% if speed.memory is not none %}
<tr><th scope="row">GPU memory</th><td>{{ speed.memory | thousands }} MiB</td></tr>
{% endif %}
</table></div>
""",
    _speed,
)


def _setup(report: RunReport) -> dict[str, Any] | None:
    facts = [dict(report.data), dict(report.environment)]
    blocks = [report.command, report.criterion, report.recipe]
    return {"report": report} if any(facts) or any(blocks) else None


SETUP = Section(
    "Setup",
    """
<div class="stack">
{% if report.command %}
<div class="card"><pre>{{ report.command }}</pre></div>
{% endif %}
{% if report.data %}
<div class="card"><table class="facts">
{% for name, value in report.data.items() %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
{% if report.criterion %}
<details class="card" open><summary>Criterion</summary><pre>{{ report.criterion }}</pre></details>
{% endif %}
{% if report.recipe %}
<details class="card"><summary>Recipe</summary><pre>{{ report.recipe }}</pre></details>
{% endif %}
{% if report.environment %}
<div class="card"><table class="facts">
{% for name, value in report.environment.items() %}
<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>
{% endfor %}
</table></div>
{% endif %}
</div>
""",
    _setup,
)
