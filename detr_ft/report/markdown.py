"""An evaluation as Markdown, for a model's card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from detr_ft.evaluation.assessment import Assessment
from detr_ft.evaluation.metrics import Interval
from detr_ft.report.remarks import remarks

_FIGURES = {"map": "mAP", "map_50": "mAP50", "map_75": "mAP75", "map_small": "mAP small", "map_medium": "mAP medium", "map_large": "mAP large", "mar_100": "mAR100"}  # fmt: skip


def as_markdown(told: Assessment) -> str:
    """Headline figures with their intervals, each class, the errors; sections of the second level."""
    figures = ((name, _figure(told.figures[key]), _between(told.intervals[key])) for key, name in _FIGURES.items())
    classes = (
        (text_of(name), f"{one['count']:,}", _figure(one["map"]), _figure(one["map_50"]), *_operating(told, name))
        for name, one in told.figures["per_class"].items()
    )
    errors = ((kind, f"{told.errors.counts[kind]:,}", _figure(cost)) for kind, cost in told.costs.items())
    parts = [
        f"## Evaluation\n\nBy the protocol of COCO, on {told.marks.num_images:,} images; intervals of 95 %, over images.\n",
        _table(("figure", "value", "interval"), figures),
        "".join(f"- {text_of(remark)}\n" for remark in remarks(told)),
        "## Each class\n",
        _table(("class", "objects", "mAP", "mAP50", "threshold", "precision", "recall"), classes),
        "## Errors\n\nAs in TIDE (Bolya et al., 2020), at IoU 0.5, with the mAP50 that each costs.\n",
        _table(("error", "count", "mAP50 lost"), errors),
    ]
    return "\n".join(parts)


def text_of(value: object) -> str:
    """A name as it may stand in a line or a table cell of Markdown: nothing in it is a mark."""
    return " ".join(re.sub(r"([\\`*_\[|])", r"\\\1", str(value)).replace("<", "&lt;").split())


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _between(interval: Interval | None) -> str:
    return "–" if interval is None else f"{interval.low:.3f} to {interval.high:.3f}"


def _operating(told: Assessment, name: str) -> tuple[str, str, str]:
    at = told.thresholds[name]
    return f"{at.threshold:.2f}", f"{at.precision:.3f}", f"{at.recall:.3f}"
