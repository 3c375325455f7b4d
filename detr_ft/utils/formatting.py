"""Numbers, durations and Markdown tables as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
    r"|[\U000e0000-\U000e007f]"
)


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


def visible(text: str) -> str:
    """Return a text with escapes for the control characters of a terminal: ESC is `\\x1b`.

    They are those of ASCII and Latin-1 apart from the end of a line and the tabulator, those that reverse or hide text, other ends
    of lines, and halves of surrogate pairs.
    """
    return _CONTROL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    """Return the escape of a character: that of JSON from DEL on, which JSON may contain."""
    if match[0] < " ":
        return f"\\x{ord(match[0]):02x}"
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))


def shorten(text: str, length: int) -> str:
    """Return a text of at most about `length` characters: its start and its end, with the number left out."""
    if len(text) <= length:
        return text
    return f"{text[: length * 3 // 4]} ... ({len(text) - length:,} characters left out) ... {text[-(length // 4) :]}"


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
