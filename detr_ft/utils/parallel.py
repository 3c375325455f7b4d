"""Something done to every row of a split, on all cores, with a progress bar where a person watches."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from datasets import Dataset

from detr_ft.utils.progress import track

T = TypeVar("T")

# How many rows a thread may be ahead of whoever takes the results.
_AHEAD = 32


def map_rows(function: Callable[[dict[str, Any]], T], rows: Dataset, words: str) -> Iterator[T]:
    """`function(row)` of each row, in order. Threads do it: decoding and hashing let go of Python's lock.

    Each thread fetches its own row, and only a few are ahead of the reader: images are never all in memory.
    """
    results = _in_order(lambda index: function(rows[index]), len(rows))
    yield from track(results, words, len(rows))


def _in_order(function: Callable[[int], T], count: int) -> Iterator[T]:
    threads = os.cpu_count() or 1
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for index in range(count):
            waiting.append(pool.submit(function, index))
            if len(waiting) > threads * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
