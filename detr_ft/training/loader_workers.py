"""The processes of a loader that read images: their signals, their end, and errors of those that died."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch.utils.data import get_worker_info

from detr_ft.errors import InputError

_STDERR = 2
_MODULE_OF_SIGCHLD_HANDLER = "torch.utils.data._utils.signal_handling"
_SIGBUS, _SIGKILL = 7, 9  # Windows has neither
_ADVICE = {
    _SIGKILL: "The system does this when memory is short: use fewer train.dataloader_num_workers, or a smaller data.longest_edge",
    _SIGBUS: "Shared memory (/dev/shm) may be full: enlarge it (docker run --shm-size=8g), or use fewer train.dataloader_num_workers",
}  # fmt: skip
_CRASH = "A library in C that reads or augments images crashed"


class WorkerError(RuntimeError):
    """A process that reads images ended unexpectedly. Names the cause and the images of the batch."""


def set_up_worker(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM, which would end workers before the run saves its state; end with the run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    run = multiprocessing.parent_process()
    if run is not None:
        threading.Thread(target=_end_with, args=(run,), daemon=True, name="detr_ft end of the run").start()


def _end_with(run: Any) -> None:
    """End this process once the run has, however that ended: the loader's own check waits for the image."""
    run.join()
    os._exit(1)


@contextmanager
def stuck_worker_ends_after(seconds: float) -> Iterator[None]:
    """End a worker whose code holds Python's lock that long, with a traceback; it cannot report a failure."""
    if get_worker_info() is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def statuses_of_workers(inputs: Iterator[Any]) -> list[int]:
    """Return the exit statuses of a loader's workers that failed, negative for signals."""
    return [worker.exitcode for worker in _workers_of(inputs) if worker.exitcode]


def _workers_of(inputs: Iterator[Any]) -> Sequence[Any]:
    return getattr(inputs, "_workers", ())


@contextmanager
def ended_workers(inputs: Iterator[Any]) -> Iterator[None]:
    """Kill the workers if the context ends early: one that hangs would keep the process from its end."""
    try:
        yield
    except BaseException:
        for worker in _workers_of(inputs):
            worker.kill()
        # Now rather than at some time later, when torch would report the killed workers.
        getattr(inputs, "_shutdown_workers", lambda: None)()
        raise


@contextmanager
def dead_workers_raise_nothing() -> Iterator[None]:
    """Disable torch's handler for dead workers, which raises anywhere in the main thread, also in a step.

    Waiting for a batch notices them within five seconds.
    """
    number = getattr(signal, "SIGCHLD", None)  # None on Windows
    handler = None if number is None else signal.getsignal(number)
    if number is None or getattr(handler, "__module__", None) != _MODULE_OF_SIGCHLD_HANDLER:
        yield
        return
    with contextlib.suppress(ValueError):  # outside the main thread
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            signal.signal(number, handler)


def error_of_worker(status: int, images: str, timeout: float) -> Exception:
    """Return the error of a worker that ended with a status, negative for a signal."""
    waiting = f"while the run waited for {images}"
    if status > 0:  # only `stuck_worker_ends_after` ends a worker so
        return InputError(
            f"a process that reads images hung {waiting}: an image took longer than {timeout:g} s. The traceback above shows "
            "its code. Correct it, or raise train.dataloader_timeout"
        )
    name = signal.strsignal(-status) or "unknown"
    return WorkerError(
        f"a process that reads images was ended by signal {-status} ({name}) {waiting}. {_ADVICE.get(-status, _CRASH)}"
    )
