"""The end of a run: signals, the time limit, divergence, and the best of its evaluations."""

from __future__ import annotations

import logging
import signal
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

import torch

from detr_ft.errors import Interrupted
from detr_ft.run_directory import BEST_CHECKPOINT
from detr_ft.training.step import DivergedError, StepAttempt
from detr_ft.utils.collectives import AsyncScalar, start_max, world_size

logger = logging.getLogger(__name__)

TIME_IS_OVER = 1  # a request to stop that is no signal; those have other numbers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEATED_SIGNAL_SECONDS = 2.0  # launchers forward a Ctrl-C to processes that received it from the terminal already


class StopRequests:
    """Requests to stop, of a signal or of the time limit, that all processes obey at the same step."""

    def __init__(self, max_minutes: float | None, device: torch.device) -> None:
        self.signals, self.clock = Signals(), Clock(max_minutes)
        self._flag = SharedFlag(device)

    def current(self) -> int:
        """Return a signal, TIME_IS_OVER, or 0: the same on all processes, which must all call this."""
        return self._flag.update(self.signals.received or (TIME_IS_OVER if self.clock.over else 0))


class Signals:
    """Within its context stores SIGINT and SIGTERM in `received`; a SIGINT two seconds later interrupts.

    Outside the main thread, where Python accepts no signal handlers, signals keep their previous effect.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._received_at = number, now
        elif number == signal.SIGINT and now - self._received_at > _REPEATED_SIGNAL_SECONDS:
            raise Interrupted(number)


class SharedFlag:
    """The largest of a small number of each process, one step old if there are several."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._previous: AsyncScalar | None = None

    def update(self, own: int) -> int:
        """Return the largest number that the processes passed the previous time; all must call this together."""
        if world_size() == 1:
            return own
        previous, self._previous = self._previous, start_max(own, self._device)
        return int(previous.value()) if previous else 0


@dataclass
class Clock:
    """The seconds that a run has trained since its beginning, over all interruptions, and its time limit."""

    minutes: float | None
    evaluation: float = 0.0  # seconds of the latest evaluation
    _started_at: float = field(default_factory=time.monotonic)

    def start(self, previous_seconds: float) -> None:
        """Start to measure, after `previous_seconds` before an interruption."""
        self._started_at = time.monotonic() - previous_seconds

    def record_evaluation(self, seconds: float) -> None:
        """Reserve the duration of the latest evaluation for the next one."""
        self.evaluation = seconds

    @property
    def seconds(self) -> float:
        """The seconds of training so far."""
        return time.monotonic() - self._started_at

    @property
    def left(self) -> float | None:
        """The seconds left, without the next evaluation; None without a limit."""
        return None if self.minutes is None else max(0.0, 60 * self.minutes - self.seconds - self.evaluation)

    @property
    def over(self) -> bool:
        """True if no more time is left than an evaluation takes."""
        return self.minutes is not None and self.seconds + self.evaluation > 60 * self.minutes


@dataclass(frozen=True)
class ModelSelection:
    """The choice of the best model by a metric of the evaluations, and the patience with worse ones."""

    metric: str
    threshold: float
    patience: int | None

    def best(self, evaluations: Sequence[Mapping[str, Any]]) -> Best | None:
        """Return the best of the evaluations so far."""
        return best_of(evaluations, self.metric, self.threshold)

    def out_of_patience(self, evaluations: Sequence[Mapping[str, Any]]) -> bool:
        """Return whether the last `patience` evaluations were no better than an earlier one, and log it."""
        best = self.best(evaluations)
        if best is None or self.patience is None or best.since < self.patience:
            return False
        logger.info(
            "early stopping: none of the last %d evaluations was better than at step %d", self.patience, best.step
        )
        return True


@dataclass(frozen=True)
class Best:
    """The best evaluation of a run, and the number of evaluations after it."""

    value: float
    step: int
    since: int


def best_of(rows: Sequence[Mapping[str, Any]], metric: str, threshold: float = 0.0) -> Best | None:
    """Return the best evaluation among rows of a log, the highest; None if no row has the metric.

    An evaluation is better than another by more than `threshold`. Rows without a value, of a split without boxes, are skipped.
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
    """Return a sentence on the best evaluation if it was better than the last one, else an empty string."""
    value = last.get(metric)
    if value is not None and value >= best.value:
        return ""
    at_the_end = "none" if value is None else f"{value:.3f}"
    return (
        f"The evaluation at step {best.step} was better ({metric} {best.value:.3f}, at the end {at_the_end}): its model is in "
        f"{BEST_CHECKPOINT}, and train.load_best_model_at_end=true makes it the model of the run."
    )


def check_divergence(losses: Sequence[float], attempt: StepAttempt) -> None:
    """Raise DivergedError if the logged losses have diverged."""
    if diverged(losses):
        loss, lowest = losses[-1], min(losses)
        raise DivergedError(f"the loss has diverged: {loss:.3g}, from {lowest:.3g}. Lower the learning rate", attempt)


def diverged(losses: Sequence[float]) -> bool:
    """Return whether the last three of a dozen or more losses exceed 20 times the median before.

    The median, because a batch without objects has a loss near 0.
    """
    *before, _, _, _ = losses if len(losses) >= 12 else [0.0] * 3
    median = statistics.median(before) if before else 0.0
    return median > 0 and min(losses[-3:]) > 20 * median
