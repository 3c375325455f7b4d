"""Small charts as inline SVG that take their colours from the page around them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detr_ft.evaluation.detection_matching import DetectionMatches
from detr_ft.evaluation.metrics import Calibration
from detr_ft.evaluation.precision_recall import RECALLS, curves_of
from detr_ft.evaluation.thresholds import f1_over_scores

# Colours that stand for the page's own, so that one chart serves light and dark.
_INK, _LINE = "#010101", "#020202"
_OF_PAGE = {_INK: "currentColor", _LINE: "var(--accent)"}
_OWN_LINES = 20  # more can't be told apart
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

    def plot(axes: Axes) -> None:
        axes.plot(xs, ys, color=_LINE, linewidth=1.6, marker="o" if len(xs) <= 20 else "", markersize=3.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.margins(x=0.02, y=0.08)

    return _chart(name, plot)


def precision_chart(marks: DetectionMatches) -> str:
    """An `<svg>` of the mean precision of the classes at each recall, at IoU 0.5 (thick) and 0.75.

    Up to twenty classes have a faint line of their own at 0.5, with the name as its `<title>`, which browsers show at the pointer.
    """
    precision = curves_of(marks, "all").precision  # [T, 101, K]
    has_objects = np.flatnonzero((precision >= 0).all((0, 1))).tolist()
    known = precision[..., has_objects]
    single: list[int] = has_objects if 1 < len(has_objects) <= _OWN_LINES else []

    def plot(axes: Axes) -> None:
        for label in single:
            axes.plot(RECALLS, precision[0, :, label], color=_INK, alpha=0.3, linewidth=0.8, gid=f"class-{label}")
        for threshold, width in ((0, 2.0), (5, 1.0)):
            axes.plot(RECALLS, known[threshold].mean(-1), color=_LINE, linewidth=width)
        _unit(axes)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")

    svg = _chart("precision", plot)
    for label in single:
        svg = svg.replace(f'<g id="class-{label}">', f"<g><title>{escape(marks.names[label])}</title>")
    return svg


def f1_chart(marks: DetectionMatches) -> str:
    """An `<svg>` of the F1 of all classes together over the threshold."""
    scores = np.linspace(0, 1, 101)

    def plot(axes: Axes) -> None:
        axes.plot(scores, f1_over_scores(marks, scores), color=_LINE, linewidth=1.6)
        _unit(axes)
        axes.set_xlabel("threshold")
        axes.set_ylabel("F1")

    return _chart("f1", plot)


def calibration_chart(told: Calibration) -> str:
    """An `<svg>` of the share that is right over the score, beside the line on which both are equal."""

    def plot(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, alpha=0.35, linestyle="--")
        axes.plot(
            [one.score for one in told.bins],
            [one.right for one in told.bins],
            color=_LINE,
            linewidth=1.6,
            marker="o",
            markersize=4,
        )
        _unit(axes)
        axes.set_xlabel("score")
        axes.set_ylabel("right")

    return _chart("calibration", plot)


def _unit(axes: Axes) -> None:
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _chart(name: str, plot: Callable[[Axes], None]) -> str:
    # The salt makes ids that are the same for the same run and differ between the charts of a page.
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(3.6, 2.1), layout="constrained")
        axes = figure.add_subplot()
        plot(axes)
        axes.grid(visible=True, axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(4))
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
