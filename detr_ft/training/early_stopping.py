"""When a run is at its best, and when it is over before its last epoch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Best:
    """The best of a run's evaluations, and how many came after it without another by more than a threshold."""

    value: float
    step: int
    since: int


def best_of(rows: Sequence[Mapping[str, Any]], metric: str, threshold: float = 0.0) -> Best | None:
    """The best evaluation among the rows of a log, by a metric that grows; None where none has it.

    One is better than another by more than `threshold`. Rows without a figure, of a split without boxes, don't count.
    """
    best: Best | None = None
    for row in rows:
        value = row.get(metric)
        if value is None:
            continue
        better = best is None or value > best.value + threshold
        best = Best(value, row["step"], 0) if better or best is None else Best(best.value, best.step, best.since + 1)
    return best


def better_than_last(best: Best, metric: str, last: Mapping[str, Any]) -> str:
    """A sentence on an evaluation that was better than the last one, or nothing."""
    value = last.get(metric)
    if value is not None and value >= best.value:
        return ""
    at_the_end = "nothing" if value is None else f"{value:.3f}"
    return (
        f"The evaluation at step {best.step} was better ({metric} {best.value:.3f}, at the end {at_the_end}): "
        "that model is in checkpoints/best, and train.load_best_model_at_end=true ends with it."
    )


@dataclass
class Clock:
    """How long a run trains, in seconds, from its beginning on, however often it was stopped; and when that is enough."""

    minutes: float | None
    evaluation: float = 0.0  # how long the last evaluation took
    _began: float = field(default_factory=time.monotonic)

    def start(self, spent: float) -> None:
        """Training begins now, after so many seconds in earlier sittings."""
        self._began = time.monotonic() - spent

    @property
    def seconds(self) -> float:
        """How long it has trained."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float | None:
        """For how many seconds it may train on, the next evaluation not counted; None without a limit."""
        return None if self.minutes is None else max(0.0, 60 * self.minutes - self.seconds - self.evaluation)

    @property
    def over(self) -> bool:
        """Whether the time that is left is what an evaluation takes."""
        return self.minutes is not None and self.seconds + self.evaluation > 60 * self.minutes
