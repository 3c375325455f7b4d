"""Speed of a run: of its first steps, the time that is left, and a warning if it falls."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

from detr_ft.utils.formatting import duration, percent
from detr_ft.utils.threads import ProcessorLoad, num_cores

_T = TypeVar("_T")
_WARMUP_STEPS, _TIMED_STEPS = 2, 20
_NOTABLE_WAIT = 0.25  # fraction of the time spent waiting for images that is worth advice
_RECENT_ROWS, _MIN_EARLIER_ROWS = 3, 4  # of the log, to recognize that a run has become slower
_SLOW = 1 / 3  # of the earlier speed
_MEDIAN_ROWS = 9  # of the log, so that a row during which the machine was busy does not count


class StepTimer:
    """Times the first steps of a run, from the third on: the wait for images, and the whole step."""

    def __init__(self) -> None:
        self.steps = self.images = 0
        self.waiting = self.total = 0.0  # seconds
        self._requested_at = self._received_at = 0.0

    def timed(self, batches: Iterable[_T]) -> Iterator[_T]:
        """Yield the batches, and measure the wait for each."""
        iterator = iter(batches)
        while True:
            self._requested_at = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._received_at = time.monotonic()
            yield batch

    def after_step(self, images: int, steps_left: int, seconds_left: float | None) -> str | None:
        """Count a step of so many images; after twenty timed ones, return speed and time left in words."""
        self.steps += 1
        if _WARMUP_STEPS < self.steps <= _WARMUP_STEPS + _TIMED_STEPS:
            self.images += images
            self.waiting += self._received_at - self._requested_at
            self.total += time.monotonic() - self._requested_at  # without evaluations, which lie between steps
        if self.steps != _WARMUP_STEPS + _TIMED_STEPS or steps_left <= 0:
            return None
        return self._estimate(steps_left, seconds_left)

    def _estimate(self, steps_left: int, seconds_left: float | None) -> str:
        waiting = self.waiting / self.total
        advice = "; train.dataloader_num_workers reads them during the steps" if waiting > _NOTABLE_WAIT else ""
        left = duration(steps_left * self.total / _TIMED_STEPS)
        return (
            f"{self.images / self.total:.1f} images a second on this process: the remaining {steps_left} steps take about "
            f"{left}, without evaluations. {percent(waiting)} of a step is waiting for images{advice}"
            f"{self._too_long(steps_left, seconds_left)}"
        )

    def _too_long(self, steps_left: int, seconds_left: float | None) -> str:
        possible = steps_left if seconds_left is None else int(seconds_left / self.total * _TIMED_STEPS)
        if possible >= steps_left:
            return ""
        return (
            f". train.max_minutes ends the run after about {possible} of these steps, before the learning rate has fallen to "
            "its end; use fewer train.num_train_epochs"
        )


class RemainingTime:
    """The time left in a run, by the median speed of the last rows of its log, and its limit."""

    def __init__(self, steps: int, seconds_left: float | None) -> None:
        self._steps = steps
        self._ends_at = None if seconds_left is None else time.monotonic() + seconds_left
        self._seconds_per_step: deque[float] = deque(maxlen=_MEDIAN_ROWS)

    def after(self, step: int, seconds_per_step: float) -> str:
        """Return the time left after a step as minutes and seconds, given the speed in its row of the log."""
        self._seconds_per_step.append(seconds_per_step)
        left = (self._steps - step) * statistics.median(self._seconds_per_step)
        if self._ends_at is not None:
            left = max(0.0, min(left, self._ends_at - time.monotonic()))
        return f"{int(left) // 60}:{int(left) % 60:02d}"


class SpeedWatch:
    """Compares the speed in the rows of a log with that of the earlier rows."""

    def __init__(self) -> None:
        self._earlier: list[float] = []
        self._recent: deque[float] = deque(maxlen=_RECENT_ROWS)
        self._load = ProcessorLoad()
        self._warned = False

    def after(self, images_per_second: float) -> str | None:
        """Take the speed of a row; return a warning when it has fallen below a third, once until it recovers."""
        if len(self._recent) == _RECENT_ROWS and not self._warned:
            self._earlier.append(self._recent[0])
        self._recent.append(images_per_second)
        if len(self._earlier) < _MIN_EARLIER_ROWS:
            return None
        before, now = statistics.median(self._earlier), statistics.median(self._recent)
        was_warned, self._warned = self._warned, now < _SLOW * before
        load, self._load = self._load, ProcessorLoad()
        return self._warning(before, now, load.by_others()) if self._warned and not was_warned else None

    def _warning(self, before: float, now: float, by_others: float) -> str:
        text = (
            f"the speed has fallen from {before:.1f} to {now:.1f} images a second; other processes use {by_others:.1f} of "
            f"{num_cores()} cores"
        )
        if by_others < 0.5 or torch.get_num_threads() == 1:
            return text
        return (
            f"{text}, and threads that wait for each other cost most of the time. End them, or stop this run (Ctrl-C) and "
            "continue it with OMP_NUM_THREADS=1 before the command, and --resume"
        )
