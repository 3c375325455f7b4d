"""Values as they may stand in a card, whatever a file holds in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping inside another one, empty where there is none."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def figure(value: float | None) -> str:
    """A figure, or a dash for what was not measured."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
