"""The end of a run: signals, the time limit, divergence, and the best of its evaluations."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch

from detr_ft.errors import Interrupted
from detr_ft.run_directory import BEST_CHECKPOINT
from detr_ft.training.step import DivergedError, StepAttempt
from detr_ft.utils.collectives import AsyncScalar, start_max, world_size

logger = logging.getLogger(__name__)

TIME_IS_OVER = 1  # a request to stop that is no signal; those have other numbers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEATED_SIGNAL_SECONDS = 2.0  # launchers forward Ctrl-C and SIGTERM to processes that received them already
_SECONDS_TO_LEAVE = 1.0  # after a second signal
_MAX_SIGNALS_AT_ONCE = 64
_STDERR = 2


class StopRequests:
    """Requests to stop, of a signal or of the time limit, that all processes obey at the same step."""

    def __init__(self, max_minutes: float | None, device: torch.device) -> None:
        self.signals, self.clock = Signals(), Clock(max_minutes)
        self._flag = SharedFlag(device)

    def current(self) -> int:
        """Return a signal, TIME_IS_OVER, or 0: the same on all processes, which must all call this."""
        return self._flag.update(self.signals.received or (TIME_IS_OVER if self.clock.over else 0))

    def interrupting(self) -> AbstractContextManager[None]:
        """Return a context to wait for images in, which a signal ends by Interrupted in a single process.

        Several processes stop at the same step, so that each waits for its images.
        """
        return self.signals.interrupting() if world_size() == 1 else nullcontext()


class Signals:
    """Within its context stores SIGINT and SIGTERM in `received`; a second one interrupts.

    Launchers forward a signal to processes that received it already, so the same one within two seconds counts once. After
    a second signal the process has a second to leave the context; then it ends, whatever code it is running. Outside the
    main thread, where Python accepts no signal handlers, signals keep their previous effect.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._main, self._watched = _SignalCount(), _SignalCount()
        self._is_waiting = False
        self._previous: dict[int, Any] = {}
        self._watcher = ExitStack()

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
            self._start_watcher()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._watcher.close()
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise Interrupted within the context at the first signal, and at once if there was one before."""
        self._is_waiting = True
        try:
            if self.received is not None:
                raise Interrupted(self.received)
            yield
        finally:
            self._is_waiting = False

    def _receive(self, number: int, frame: FrameType | None) -> None:
        is_second = self._main.is_second(number)
        self.received = self.received or number
        if is_second or self._is_waiting:
            raise Interrupted(number)

    def _start_watcher(self) -> None:
        """Start a thread that receives signals also while the main thread runs code in C."""
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        left = threading.Event()
        previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(reader, left), daemon=True, name="detr_ft signals")
        thread.start()
        for undo in (reader.close, thread.join, writer.close, left.set, lambda: signal.set_wakeup_fd(previous)):
            self._watcher.callback(undo)  # the last is called first

    def _watch(self, reader: socket.socket, left: threading.Event) -> None:
        while numbers := reader.recv(_MAX_SIGNALS_AT_ONCE):
            for number in numbers:
                if number in _SIGNALS and self._watched.is_second(number) and not left.wait(_SECONDS_TO_LEAVE):
                    _end_process(number)


class _SignalCount:
    """Distinguishes a second request from a signal that a launcher forwards."""

    def __init__(self) -> None:
        self._first: tuple[int, float] | None = None

    def is_second(self, number: int) -> bool:
        """Return whether a signal is the second request."""
        now = time.monotonic()
        self._first = self._first or (number, now)
        first, at = self._first
        return number != first or now - at > _REPEATED_SIGNAL_SECONDS


def _end_process(number: int) -> NoReturn:
    """End this process and its workers at once, also if the main thread runs code in C that never returns."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()
    show_cursor = b"\x1b[?25h" if os.isatty(_STDERR) else b""  # which a progress bar hides
    os.write(_STDERR, show_cursor + f"\n{signal.Signals(number).name}: ended at once\n".encode())
    os._exit(128 + number)


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
