"""Metrics as plain-text tables."""

from __future__ import annotations

from typing import Any

_HEADLINES = ("map", "map_50", "map_75", "map_small", "map_medium", "map_large", "mar_1", "mar_10", "mar_100")


def figures_table(metrics: dict[str, Any]) -> str:
    """The headline figures and those of each class, as plain text."""
    lines = [f"{name:<12} {_figure(metrics[name])}" for name in _HEADLINES]
    width = max([5, *map(len, metrics["per_class"])])
    lines.append(f"\n{'class':<{width}}  boxes    map  map_50")
    for name, one in metrics["per_class"].items():
        lines.append(f"{name:<{width}}  {one['count']:>5}  {_figure(one['map'])}   {_figure(one['map_50'])}")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return " none" if value is None else f"{value:.3f}"
