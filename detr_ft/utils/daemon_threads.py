"""Calls in threads that never keep the process alive, and waiting for their results with a time limit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

# A signal between the start of a wait and its system call does not end the call, so that waits are short.
_MAX_WAIT_SECONDS = 1.0


class TimeLimitError(Exception):
    """A call took longer than its time limit."""


class DaemonThreads:
    """Threads that make calls in the order of their submission.

    Unlike the threads of `concurrent.futures`, one that hangs does not prevent the end of the process.
    """

    def __init__(self, count: int) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._threads = [Thread(target=self._run, daemon=True, name="detr_ft calls") for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Return the future result of a call, which may be an exception of any class."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def close(self, seconds: float = 0.0) -> None:
        """End the threads after the submitted calls; wait for that at most so many seconds."""
        deadline = time.monotonic() + seconds
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def frames(self) -> list[FrameType]:
        """Return the innermost frame of each thread, also of one that hangs."""
        frames = sys._current_frames()
        return [frames[thread.ident] for thread in self._threads if thread.ident in frames]

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)
            del item, future, call  # a waiting thread must not keep the last result in memory


def result_within(future: Future[T], seconds: float) -> T:
    """Return the result of a call, or raise its exception; TimeLimitError after so many seconds without."""
    deadline = time.monotonic() + seconds
    while not future.done():
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeLimitError(f"no result after {seconds:g} s")
        with suppress(TimeoutError):  # the call's own is raised below
            return future.result(min(left, _MAX_WAIT_SECONDS))
    return future.result()
