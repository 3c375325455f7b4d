"""What a run draws from the mains, where the hardware counts it: Nvidia's GPUs, and Intel's and AMD's processors by RAPL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

_PACKAGES = Path("/sys/class/powercap")  # a file for each processor, that often only root may read


class EnergyMeter:
    """Counts from when it is made. The rest of the machine isn't counted, nor other processes told apart."""

    def __init__(self, counters: Sequence[Callable[[], float]] | None = None) -> None:
        self._counters = list(_counters() if counters is None else counters)
        self._before = [one() for one in self._counters]

    def watt_hours(self) -> float | None:
        """What was drawn so far; None where nothing counts it, or a counter has begun anew."""
        drawn = [one() - before for one, before in zip(self._counters, self._before, strict=True)]
        return sum(drawn) / 3600 if drawn and min(drawn) >= 0 else None


def _counters() -> list[Callable[[], float]]:
    """Joules since some time, for each device that tells."""
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
    except nvml.NVMLError:  # GPUs before Volta don't count
        return []
    return [lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000]


def _of_processors() -> list[Callable[[], float]]:
    found: list[Callable[[], float]] = []
    for file in sorted(_PACKAGES.glob("intel-rapl:?/energy_uj")):
        try:
            _joules(file)
        except (OSError, ValueError):
            continue
        found.append(lambda file=file: _joules(file))  # type: ignore[misc]
    return found


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6
