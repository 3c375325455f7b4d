"""The processes of a run: the device they use, their collectives, and work on rows divided among them."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from detr_ft.utils.distributed import processes

T = TypeVar("T")

_STORE_TIMEOUT = timedelta(seconds=5)


def on_cpus() -> bool:
    """Return whether accelerate must not use GPUs: the value of `cpu=` for Accelerator and PartialState.

    True if accelerate's own launcher set it, and for one of several processes on a machine without GPUs. Otherwise
    accelerate treats the processes that `torchrun` starts on CPUs as independent runs of one process each, all of which
    train and write into the same folder. A single process keeps accelerate's choice, which may be another accelerator.
    """
    return parse_flag_from_env("ACCELERATE_USE_CPU") or (processes() > 1 and not torch.cuda.is_available())


def has_process_group() -> bool:
    """Return whether this process has joined a process group, which may have a single member."""
    return distributed.is_available() and distributed.is_initialized()


def world_size() -> int:
    """Return the number of processes in the process group; 1 without a group."""
    return distributed.get_world_size() if has_process_group() else 1


def sum_over_processes(values: Tensor) -> Tensor:
    """Add the values of all processes in place, without synchronizing the device, and return them.

    Like every collective of this module: all processes of the group must call it, and a single process keeps its own values.
    """
    if world_size() > 1:
        distributed.all_reduce(values)
    return values


def mean_over_processes(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the mean of each scalar over the processes, which must all have the same names, as fp32."""
    if world_size() == 1:
        return dict(values)
    sums = sum_over_processes(torch.stack([value.float() for value in values.values()]))
    return dict(zip(values, sums / world_size(), strict=True))


def max_over_processes(value: int, device: torch.device) -> int:
    """Return the largest of a small number of each process."""
    return value if world_size() == 1 else int(start_max(value, device).value())


def max_on_hosts(values: list[int]) -> list[int]:
    """Return the largest of each of a few numbers over the processes, without their devices."""
    if world_size() == 1:
        return values
    largest = torch.tensor(values)
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX, group=_group_of_hosts(distributed.group.WORLD))
    return [int(value) for value in largest]


@functools.cache
def _group_of_hosts(world: object) -> Any:
    """Return a group of all processes for tensors on the host; its first call is a collective."""
    return world if distributed.get_backend() == "gloo" else distributed.new_group(backend="gloo")


def start_max(value: int, device: torch.device) -> AsyncScalar:
    """Start to compute the largest of a small number of each process, without synchronizing the device."""
    largest = torch.full((), value, device=device)  # copying a host tensor to a GPU would synchronize
    if world_size() > 1:
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return AsyncScalar(largest)


def gather_objects(value: T) -> list[T]:
    """Return the value of every process, in the order of their ranks. The values must be picklable."""
    if world_size() == 1:
        return [value]
    values: list[T] = [value] * world_size()
    distributed.all_gather_object(values, value)
    return values


def is_first_report(text: str) -> bool:
    """Return whether no other process has reported this text, so that an error is printed once.

    The processes share the store of their launcher. If it cannot be reached any more, each process reports.
    """
    if processes() == 1:
        return True
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    digest = hashlib.sha256(text.encode()).hexdigest()
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=_STORE_TIMEOUT)
        return bool(store.add(f"detr_ft/reported/{attempt}/{digest}", 1) == 1)
    except (KeyError, ValueError, RuntimeError):
        return True


def map_divided(rows: Dataset, work: Callable[[Dataset], Iterable[T]]) -> list[T]:
    """Return the results of `work` for all rows, in order; every process handles a part of them.

    `work` must yield one result a row. Every process of the run must call this, and each gets all results.
    """
    state = PartialState(cpu=on_cpus())
    mine = range(state.process_index, len(rows), state.num_processes)
    results = zip(mine, work(rows.select(mine)), strict=True)
    return [result for _, result in sorted(chain(*gather_objects(list(results))), key=lambda pair: pair[0])]


class AsyncScalar:
    """A scalar of a device that is copied to the host asynchronously; `value` blocks until it has arrived."""

    def __init__(self, scalar: Tensor) -> None:
        self._host = scalar.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if scalar.device.type == "cuda":
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    def value(self) -> float:
        """Return the scalar."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._host.item()
