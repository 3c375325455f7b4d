"""Metrics as plain-text tables."""

from __future__ import annotations

from typing import Any

from detr_ft.evaluation.metrics import TABLE_METRICS
from detr_ft.utils.formatting import metric


def figures_table(metrics: dict[str, Any]) -> str:
    """The headline figures and those of each class, as plain text."""
    lines = [f"{name:<12} {metric(metrics[name], ' none')}" for name in TABLE_METRICS]
    width = max([5, *map(len, metrics["per_class"])])
    lines.append(f"\n{'class':<{width}}  boxes    map  map_50")
    for name, one in metrics["per_class"].items():
        lines.append(
            f"{name:<{width}}  {one['count']:>5}  {metric(one['map'], ' none')}   {metric(one['map_50'], ' none')}"
        )
    return "\n".join(lines)
