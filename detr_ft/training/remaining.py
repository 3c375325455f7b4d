"""How long a run still goes on."""

from __future__ import annotations

import statistics
import time
from collections import deque

_ROWS = 9  # of the log, whose median is the pace: one that the machine was busy in says nothing of the others


class Remaining:
    """What is left of a run of so many steps that may train for so many seconds more, by the pace of its last rows."""

    def __init__(self, steps: int, seconds: float | None) -> None:
        self._steps = steps
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._pace: deque[float] = deque(maxlen=_ROWS)

    def after(self, step: int, seconds_per_step: float) -> str:
        """Minutes and seconds that are left after a step, and a row of the log that says what steps take."""
        self._pace.append(seconds_per_step)
        left = (self._steps - step) * statistics.median(self._pace)
        whole = int(left if self._ends is None else max(0.0, min(left, self._ends - time.monotonic())))
        return f"{whole // 60}:{whole % 60:02d}"
