"""How fast the first steps of a run are, and how long it will take at that."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

from detr_ft.utils.formatting import duration

_T = TypeVar("_T")
_WARM, _STEPS = 2, 20
_MUCH = 0.25  # of the time spent waiting for images, before it is worth a word


_ROWS = 9  # of the log, whose median is the pace: one that the machine was busy in says nothing of the others


class Pace:
    """Times the first steps of a run, from the third on: what is waited for images, and what a step takes in all."""

    def __init__(self) -> None:
        self.steps = self.images = 0
        self.waited = self.taken = 0.0
        self._asked = self._given = 0.0

    def timed(self, works: Iterable[_T]) -> Iterator[_T]:
        """The same, with the time that each was waited for."""
        waiting = iter(works)
        while True:
            self._asked = time.monotonic()
            try:
                work = next(waiting)
            except StopIteration:
                return
            self._given = time.monotonic()
            yield work

    def step(self, images: int, left: int, seconds: float | None) -> str | None:
        """A step was taken, and so many are left, in so many seconds at most: what there is to say, once, after twenty of them."""
        self.steps += 1
        if _WARM < self.steps <= _WARM + _STEPS:
            self.images += images
            self.waited += self._given - self._asked
            self.taken += time.monotonic() - self._asked  # of the step alone: evaluations come between steps
        return self._words(left, seconds) if self.steps == _WARM + _STEPS and left > 0 else None

    def _words(self, left: int, seconds: float | None) -> str:
        share = self.waited / self.taken
        advice = "; train.dataloader_num_workers reads them beside the steps" if share > _MUCH else ""
        return (
            f"{self.images / self.taken:.1f} images a second on this process: the {left} steps that are left take about {duration(left * self.taken / _STEPS)}, "
            f"evaluations not counted. {100 * share:.0f} % of a step is waiting for images{advice}{self._too_long(left, seconds)}"
        )

    def _too_long(self, left: int, seconds: float | None) -> str:
        able = left if seconds is None else int(seconds / self.taken * _STEPS)
        if able >= left:
            return ""
        return (
            f". train.max_minutes ends the run after about {able} of these steps; the learning rate falls as if it took them "
            "all, so fewer train.num_train_epochs use the time better"
        )


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
