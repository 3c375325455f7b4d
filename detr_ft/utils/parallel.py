"""Functions over the rows of a split in threads, with a progress bar and a time limit for each."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from datasets import Dataset

from detr_ft.errors import InputError
from detr_ft.utils.daemon_threads import DaemonThreads, TimeLimitError, result_within
from detr_ft.utils.progress import track

T = TypeVar("T")

MAX_ROW_SECONDS = 120.0  # for one row; only a file system or a decoder that hangs takes so long
_MAX_ROWS_AHEAD_PER_THREAD = 32  # of the caller
_MAX_CLOSING_SECONDS = 1.0


def map_rows(function: Callable[[dict[str, Any]], T], rows: Dataset, label: str) -> Iterator[T]:
    """Yield `function(row)` of each row, in order; `label` is the text of the progress bar.

    Threads suffice, because decoding and hashing release Python's lock. Each thread reads its own row, and only a few are
    ahead of the caller: the images are never all in memory. Raises InputError for an image that takes two minutes.
    """
    read: dict[int, dict[str, Any]] = {}

    def of_row(index: int) -> T:
        read[index] = rows[index]
        result = function(read[index])
        del read[index]
        return result

    results = _in_order(of_row, len(rows), lambda index: InputError(_overdue(name_of(index, read.get(index)))))
    yield from track(results, label, len(rows))


class LimitedReads:
    """Reads images one after another in a thread, each within two minutes."""

    def __init__(self) -> None:
        self._thread = DaemonThreads(1)

    def __enter__(self) -> LimitedReads:
        return self

    def __exit__(self, kind: object, error: object, at: object) -> None:
        self._thread.close()

    def __call__(self, read: Callable[[], T], name: str) -> T:
        """Return the result of `read`, or raise its exception; InputError if it takes too long."""
        try:
            return result_within(self._thread.submit(read), MAX_ROW_SECONDS)
        except TimeLimitError as error:
            self._thread = DaemonThreads(1)  # the other one hangs
            raise InputError(_overdue(name)) from error


def _in_order(function: Callable[[int], T], count: int, overdue: Callable[[int], InputError]) -> Iterator[T]:
    number = os.cpu_count() or 1
    threads = DaemonThreads(number)
    waiting: deque[tuple[int, Future[T]]] = deque()

    def oldest() -> T:
        index, future = waiting.popleft()
        try:
            return result_within(future, MAX_ROW_SECONDS)
        except TimeLimitError as error:
            raise overdue(index) from error

    try:
        for index in range(count):
            waiting.append((index, threads.submit(partial(function, index))))
            if len(waiting) > number * _MAX_ROWS_AHEAD_PER_THREAD:
                yield oldest()
        while waiting:
            yield oldest()
    finally:
        for _, future in waiting:
            future.cancel()
        threads.close(_MAX_CLOSING_SECONDS)


def name_of(index: int, row: Mapping[str, Any] | None) -> str:
    """Return the path of a row's image, or its index if the data have none."""
    image = (row or {}).get("image") or {}
    return image.get("path") or f"the image of row {index}"


def _overdue(name: str) -> str:
    return f"{name}: could not be read within {MAX_ROW_SECONDS:g} s. Check the disk or network that it is on, or replace the file"
