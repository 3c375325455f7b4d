"""A function over all rows of a split, in threads, with a progress bar."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from datasets import Dataset

from detr_ft.utils.progress import track

T = TypeVar("T")

_MAX_ROWS_AHEAD_PER_THREAD = 32  # of the caller


def map_rows(function: Callable[[dict[str, Any]], T], rows: Dataset, label: str) -> Iterator[T]:
    """Yield `function(row)` of each row, in order; `label` is the text of the progress bar.

    Threads suffice, because decoding and hashing release Python's lock. Each thread reads its own row, and only a few are
    ahead of the caller: the images are never all in memory.
    """
    results = _in_order(lambda index: function(rows[index]), len(rows))
    yield from track(results, label, len(rows))


def _in_order(function: Callable[[int], T], count: int) -> Iterator[T]:
    threads = os.cpu_count() or 1
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for index in range(count):
            waiting.append(pool.submit(function, index))
            if len(waiting) > threads * _MAX_ROWS_AHEAD_PER_THREAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
