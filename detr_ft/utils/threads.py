"""The threads of this process and the load of the machine's processors by others.

A thread that waits for the others of its process spins. Where other processes need the same cores, two threads on two
cores train ten to a hundred times slower than one (`tests/benchmarks/busy_machine.py`).
"""

from __future__ import annotations

import logging
import os
import time

import psutil
import torch

logger = logging.getLogger(__name__)

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_MEASURED_SECONDS = 0.3
_BUSY = ("user", "nice", "system", "irq", "softirq", "steal")
_SPARE = 0.4  # of a core that may be missing: short loads of a desktop do not cost a thread


def threads_are_chosen() -> bool:
    """Return whether the user or a launcher has set the number of threads by an environment variable."""
    return any(os.environ.get(name) for name in _VARIABLES)


def use_free_cores() -> None:
    """Reduce the threads of this process to the cores that other processes leave free, and log it.

    Takes 0.3 s. Does nothing for a single thread, or if an environment variable sets the number.
    """
    threads = torch.get_num_threads()
    if threads == 1 or threads_are_chosen():
        return
    load = ProcessorLoad()
    time.sleep(_MEASURED_SECONDS)
    by_others = load.by_others()
    free = max(1, int(num_cores() - by_others + _SPARE))
    if free < threads:
        torch.set_num_threads(free)
        logger.info(
            "other processes use %.1f of %d cores: computing with %d thread%s instead of %d (OMP_NUM_THREADS=N sets the number)",
            by_others, num_cores(), free, "" if free == 1 else "s", threads,
        )  # fmt: skip


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class ProcessorLoad:
    """The load of the machine's cores since this object was made."""

    def __init__(self) -> None:
        self._started_at, self._own, self._busy = time.monotonic(), _own_seconds(), _busy_seconds()

    def by_others(self) -> float:
        """Return the cores that other processes used on average."""
        seconds = time.monotonic() - self._started_at
        others = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return min(float(psutil.cpu_count() or 1), max(0.0, others / seconds))


def _busy_seconds() -> float:
    """Return the seconds that all cores have worked; systems divide them into different parts."""
    times = psutil.cpu_times()
    return float(sum(getattr(times, part, 0.0) for part in _BUSY))


def _own_seconds() -> float:
    """Return the processor time of this process and its children, such as workers that read images."""
    process = psutil.Process()
    times = [process.cpu_times()]
    for child in process.children(recursive=True):
        try:
            times.append(child.cpu_times())
        except psutil.Error:  # it has ended
            continue
    return float(sum(one.user + one.system for one in times))
