"""Small charts as inline SVG with the colors of the page around them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detr_ft.evaluation.coco import RECALLS, precision_recall
from detr_ft.evaluation.detection_matching import DetectionMatches
from detr_ft.evaluation.metrics import Calibration
from detr_ft.evaluation.thresholds import f1_over_scores

# Placeholders that are replaced by colors of the page, so that one chart serves light and dark.
_INK, _LINE = "#010101", "#020202"
_PAGE_COLORS = {_INK: "currentColor", _LINE: "var(--accent)"}
_MAX_CLASS_LINES = 20  # more cannot be distinguished
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


def line_chart(name: str, xs: Sequence[float], ys: Sequence[float]) -> str:
    """Return an `<svg>` of the values over the steps, with no text but the numbers of its axes."""

    def plot(axes: Axes) -> None:
        axes.plot(xs, ys, color=_LINE, linewidth=1.6, marker="o" if len(xs) <= 20 else "", markersize=3.5)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.margins(x=0.02, y=0.08)

    return _chart(name, plot)


def precision_chart(matches: DetectionMatches) -> str:
    """Return an `<svg>` of the mean precision of the classes at each recall, at IoU 0.5 (thick) and 0.75.

    Up to twenty classes have a faint line each at 0.5, with the name as its `<title>`, which browsers show at the pointer.
    """
    precision = precision_recall(matches, "all").precision  # [T, 101, K]
    has_objects = np.flatnonzero((precision >= 0).all((0, 1))).tolist()
    of_classes = precision[..., has_objects]
    single: list[int] = has_objects if 1 < len(has_objects) <= _MAX_CLASS_LINES else []

    def plot(axes: Axes) -> None:
        for label in single:
            axes.plot(RECALLS, precision[0, :, label], color=_INK, alpha=0.3, linewidth=0.8, gid=f"class-{label}")
        for threshold, width in ((0, 2.0), (5, 1.0)):
            axes.plot(RECALLS, of_classes[threshold].mean(-1), color=_LINE, linewidth=width)
        _set_unit_limits(axes)
        axes.set_xlabel("recall")
        axes.set_ylabel("precision")

    svg = _chart("precision", plot)
    for label in single:
        svg = svg.replace(f'<g id="class-{label}">', f"<g><title>{escape(matches.names[label])}</title>")
    return svg


def f1_chart(matches: DetectionMatches) -> str:
    """Return an `<svg>` of the F1 of all classes together over the threshold."""
    scores = np.linspace(0, 1, 101)

    def plot(axes: Axes) -> None:
        axes.plot(scores, f1_over_scores(matches, scores), color=_LINE, linewidth=1.6)
        _set_unit_limits(axes)
        axes.set_xlabel("threshold")
        axes.set_ylabel("F1")

    return _chart("f1", plot)


def calibration_chart(calibration: Calibration) -> str:
    """Return an `<svg>` of the fraction of correct detections over the score, and the diagonal."""

    def plot(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, alpha=0.35, linestyle="--")
        axes.plot(
            [one.score for one in calibration.bins],
            [one.right for one in calibration.bins],
            color=_LINE,
            linewidth=1.6,
            marker="o",
            markersize=4,
        )
        _set_unit_limits(axes)
        axes.set_xlabel("score")
        axes.set_ylabel("correct")

    return _chart("calibration", plot)


def _set_unit_limits(axes: Axes) -> None:
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(5))


def _chart(name: str, plot: Callable[[Axes], None]) -> str:
    # The salt makes ids that are equal for equal runs and differ between the charts of a page.
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
    for placeholder, color in _PAGE_COLORS.items():
        svg = svg.replace(placeholder, color)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # ids of groups, equal in all charts; nothing refers to them
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
