"""Versions, hardware and memory use of this process."""

from __future__ import annotations

import platform
import resource
import sys
import time
from importlib.metadata import version

import torch

_PACKAGES = ("detr-ft", "torch", "transformers", "accelerate", "datasets", "numpy")


def peak_memory_mib() -> int:
    """The most memory that this process held so far: of the GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() // 2**20
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kibibytes // (2**20 if sys.platform == "darwin" else 2**10)


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
