"""Versions, hardware, memory and time of this process, and packages that only some features need."""

from __future__ import annotations

import functools
import logging
import os
import platform
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from detr_ft.errors import InputError

logger = logging.getLogger(__name__)

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_PACKAGES = ("detr-ft", "torch", "transformers", "accelerate", "datasets", "numpy")
_WARMUP_CALLS = 2
_MIN_ROUNDS = 5


def reset_peak_memory() -> None:
    """Start a new measurement of `peak_memory_mib` on a GPU; that of a CPU process cannot be reset."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()  # unused reserved memory of earlier work would count
        torch.cuda.reset_peak_memory_stats()


def peak_memory_mib() -> int:
    """Return the peak memory of this process in MiB.

    Of the GPU since the last reset if the process uses one, else of the host.
    """
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_reserved() // 2**20
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes // (2**20 if sys.platform == "darwin" else 2**10)


def device_time(device: torch.device) -> float:
    """Return the seconds of a monotonic clock, read after a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def time_calls(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """Return the seconds of each call, in rounds that run all calls in turn, for about `seconds` per name.

    A call has to end after its device has finished.
    """
    for call in calls.values():
        for _ in range(_WARMUP_CALLS):
            call()
    spent: dict[str, list[float]] = {name: [] for name in calls}
    start, rounds = time.perf_counter(), 0
    while rounds < _MIN_ROUNDS or time.perf_counter() - start < seconds * len(calls):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - began)
        rounds += 1
    return spent


@functools.cache
def warn_of_unused_gpu() -> None:
    """Warn once if this machine has an NVIDIA GPU that torch can't use: everything would run on the CPU."""
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ  # on purpose
    if hidden or not (_NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi")):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own words on the same fault
        if torch.cuda.is_available():
            return
    build = (
        f"is built for CUDA {torch.version.cuda}, which needs a newer driver"
        if torch.version.cuda
        else "is a build for CPUs"
    )
    driver = _NVIDIA_DRIVER.read_text().splitlines()[0] if _NVIDIA_DRIVER.is_file() else "see nvidia-smi"
    logger.warning(
        "this machine has an NVIDIA GPU, and torch %s %s (driver: %s): the CPU is used. Install a build of torch for the driver "
        "(https://pytorch.org/get-started/locally), or update the driver",
        torch.__version__, build, driver,
    )  # fmt: skip


def import_optional(feature: str, requirement: str, *modules: str) -> list[Any]:
    """Import modules that only one feature needs.

    Raises InputError with the package to install if one is missing.
    """
    try:
        return [import_module(module) for module in modules]
    except ImportError as error:
        raise InputError(f"{feature}: needs {' and '.join(modules)}. Run: pip install '{requirement}'.") from error


def cpu_description() -> str:
    """Return the processor as torch uses it."""
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def environment() -> dict[str, str]:
    """Return versions, hardware and date of this process, for reports and cards."""
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else cpu_description()
    return {
        "date": time.strftime("%Y-%m-%d"),
        "hardware": hardware,
        "python": platform.python_version(),
        **versions(),
    }


def versions() -> dict[str, str]:
    """Return the installed version of each package that results depend on."""
    return {package: version(package) for package in _PACKAGES}
