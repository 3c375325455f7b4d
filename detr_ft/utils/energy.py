"""Energy use of a run, where hardware meters it: Nvidia's GPUs, and Intel's and AMD's processors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

_POWERCAP = Path("/sys/class/powercap")  # a file of RAPL for each processor, often readable by root only


class EnergyMeter:
    """Measures from construction on. Counts whole devices, including other processes."""

    def __init__(self, counters: Sequence[Callable[[], float]] | None = None) -> None:
        self._counters = list(_counters() if counters is None else counters)
        self._start = [counter() for counter in self._counters]

    def watt_hours(self) -> float | None:
        """Return the energy used so far; None without a counter, and if one was reset."""
        joules = [counter() - start for counter, start in zip(self._counters, self._start, strict=True)]
        return sum(joules) / 3600 if joules and min(joules) >= 0 else None


def _counters() -> list[Callable[[], float]]:
    """Return a counter of joules for each device that has one."""
    return [*_of_gpus(), *_of_processors()]


def _of_gpus() -> list[Callable[[], float]]:
    if not torch.cuda.is_available():
        return []
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
        handle = nvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except nvml.NVMLError:  # GPUs before Volta have no counter
        return []
    return [lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000]


def _of_processors() -> list[Callable[[], float]]:
    counters: list[Callable[[], float]] = []
    for file in sorted(_POWERCAP.glob("intel-rapl:?/energy_uj")):
        try:
            _joules(file)
        except (OSError, ValueError):
            continue
        counters.append(partial(_joules, file))
    return counters


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6
