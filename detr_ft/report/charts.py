"""Small line charts as inline SVG that take their colours from the page around them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Colours that stand for the page's own, so that one chart serves light and dark.
_INK, _LINE = "#010101", "#020202"
_OF_PAGE = {_INK: "currentColor", _LINE: "var(--accent)"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "grid.color": _INK,
    "grid.alpha": 0.12,
}


def curves(log: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[float], list[float], float, float]]:
    """Name, steps, values, first and last value of each curve in a log: mAP, the loss, each of its terms, the rate.

    Terms are those of the final decoder layer, unweighted; of other layers (`loss_ce_0`) the log alone tells.
    """
    terms = dict.fromkeys(key for row in log for key in row if re.fullmatch(r"loss_(?!\w*_\d+$|\d+$)\w+", key))
    wanted = {
        "map": "mAP",
        "map_50": "mAP50",
        "loss": "loss",
        **dict(zip(terms, terms, strict=True)),
        "learning_rate": "learning rate",
    }
    for key, name in wanted.items():
        points = [(row["step"], row[key]) for row in log if _is_number(row.get(key)) and _is_number(row.get("step"))]
        if points:
            xs, ys = [float(x) for x, _ in points], [float(y) for _, y in points]
            yield name, xs, ys, ys[0], ys[-1]


def line_chart(name: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """An `<svg>` of the values over the steps. It holds no text but the numbers of its axes."""
    # The salt makes ids that are the same for the same run and differ between the charts of a page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(3.6, 2.1), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(xs, ys, color=_LINE, linewidth=1.6, marker="o" if len(xs) <= 20 else "", markersize=3.5)
        axes.grid(visible=True, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.02, y=0.08)
        axes.tick_params(length=3)
        text = StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=metadata)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    for stand_in, colour in _OF_PAGE.items():
        svg = svg.replace(stand_in, colour)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # of groups that nothing refers to; every chart has the same
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
