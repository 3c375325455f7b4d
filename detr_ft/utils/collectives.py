"""The processes of a run through accelerate: the device they use, and work on rows divided among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, parse_flag_from_env
from datasets import Dataset

from detr_ft.utils.distributed import processes

T = TypeVar("T")


def on_cpus() -> bool:
    """Return whether accelerate must not use GPUs: the value of `cpu=` for Accelerator and PartialState.

    True if accelerate's own launcher set it, and for one of several processes on a machine without GPUs. Otherwise
    accelerate treats the processes that `torchrun` starts on CPUs as independent runs of one process each, all of which
    train and write into the same folder. A single process keeps accelerate's choice, which may be another accelerator.
    """
    return parse_flag_from_env("ACCELERATE_USE_CPU") or (processes() > 1 and not torch.cuda.is_available())


def map_divided(rows: Dataset, work: Callable[[Dataset], Iterable[T]]) -> list[T]:
    """Return what `work` yields for each row, in the order of the rows; every process handles its part of them.

    `work` must yield one result a row. Every process of the run must call this, and each gets all results.
    """
    state = PartialState(cpu=on_cpus())
    mine = range(state.process_index, len(rows), state.num_processes)
    results = zip(mine, work(rows.select(mine)), strict=True)
    return [result for _, result in sorted(gather_object(list(results)), key=lambda pair: pair[0])]
