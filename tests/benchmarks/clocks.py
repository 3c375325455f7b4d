"""Durations of calls, including their work on a GPU, and the number of waits for the GPU."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable

import torch


def settle() -> None:
    """Wait until a GPU, if there is one, has finished its work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Return the duration of a call, until its work on the GPU has finished."""
    settle()
    began = time.perf_counter()
    work()
    settle()
    return time.perf_counter() - began


def paired(first: Callable[[], object], second: Callable[[], object], runs: int) -> tuple[float, float, float]:
    """Median milliseconds of both, taken in turn, and the median of their ratios."""
    for _ in range(3):
        first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(runs)]
    ratio = statistics.median(a / b for a, b in pairs)
    return 1000 * statistics.median(a for a, _ in pairs), 1000 * statistics.median(b for _, b in pairs), ratio


def waits(work: Callable[[], object]) -> int:
    """Return how often a call waits for the GPU."""
    work()
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        work()
        torch.cuda.set_sync_debug_mode("default")
    return len([one for one in caught if "synchroniz" in str(one.message)])
