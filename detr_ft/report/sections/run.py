"""Sections of a run: training curves, speed and size, and the setup that reproduces it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from detr_ft.evaluation.metrics import HEADINGS
from detr_ft.report.charts import line_chart
from detr_ft.report.content import RunReport, Section

Curve = tuple[str, list[float], list[float]]


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
<tr><th scope="row">one image</th><td>{{ "%.1f" | format(speed.latency) }} ms (the middle 80 %: {{ "%.1f" | format(speed.latency_spread[0]) }} to {{ "%.1f" | format(speed.latency_spread[1]) }})</td></tr>
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
