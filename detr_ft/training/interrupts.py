"""Signals that ask a run to end: noted at once, obeyed between two steps, by all processes together."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as distributed

from detr_ft.errors import Interrupted
from detr_ft.training.async_scalar import AsyncScalar

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN = 2.0  # seconds: launchers pass a Ctrl-C on to processes that had it from the terminal already


class Signals:
    """Within the context, SIGINT and SIGTERM are only noted in `received`; another SIGINT, two seconds on, interrupts.

    Where Python takes no signal handlers, outside of its main thread, signals do what they did before.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received, self._since = number, now
        elif number == signal.SIGINT and now - self._since > _AGAIN:
            raise Interrupted(number)


def agreed(own: int, processes: int, device: torch.device) -> int:
    """The largest of a small number of each process; all of them ask together."""
    if processes == 1:
        return own
    return int(_largest(own, device).value())


class SharedFlag:
    """What processes agree on from step to step. Of several each hears a step late, and no step waits for the answer."""

    def __init__(self, processes: int, device: torch.device) -> None:
        self._processes, self._device = processes, device
        self._before: AsyncScalar | None = None

    def ask(self, own: int) -> int:
        """The largest of a small number of each process, as they were the last time; all of them ask together."""
        if self._processes == 1:
            return own
        before, self._before = self._before, _largest(own, self._device)
        return int(before.value()) if before else 0


def _largest(own: int, device: torch.device) -> AsyncScalar:
    told = torch.full((), own, device=device)  # a number that is sent to a GPU would be waited for
    distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
    return AsyncScalar(told)
