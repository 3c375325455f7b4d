"""Numbers, durations and Markdown tables as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def metric(value: float | None, missing: str = "none") -> str:
    """Return a metric with three decimals."""
    return missing if value is None else f"{value:.3f}"


def change(before: float | None, after: float | None, missing: str = "–") -> str:
    """Return the difference of two metrics with its sign."""
    return missing if before is None or after is None else f"{after - before:+.3f}".replace("-", "−")


def percent(fraction: float | None, missing: str = "–") -> str:
    """Return a fraction in whole percent, below 1% with one decimal."""
    if fraction is None:
        return missing
    return f"{fraction:.1%}" if 0 < fraction < 0.01 else f"{fraction:.0%}"


def quantity(value: float) -> str:
    """Return a whole or large number with thousands separators, others with three digits."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return a time in seconds below 90 of them, in minutes below 90 of them, else in hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return minutes(seconds, decimals=0) if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def minutes(seconds: float, decimals: int = 1) -> str:
    """Return a time in minutes."""
    return f"{seconds / 60:.{decimals}f} minutes"


def markdown_text(value: object) -> str:
    """Return a name as plain text in a line or a table cell of Markdown, with all markup escaped."""
    return " ".join(re.sub(r"([\\`*_\[|])", r"\\\1", str(value)).replace("<", "&lt;").split())


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns are aligned to the right except for the first."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
