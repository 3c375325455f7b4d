"""Values as they may stand in a card, whatever a file holds in their place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def section(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A mapping inside another one, empty where there is none."""
    value = content.get(key)
    return value if isinstance(value, Mapping) else {}


def measured(value: object) -> bool:
    """Whether a figure was measured; COCO writes -1 where there is nothing to measure."""
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def figure(value: object) -> str:
    """A figure, or a dash for what was not measured."""
    if not measured(value):
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"
