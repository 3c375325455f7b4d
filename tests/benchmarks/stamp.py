"""What a figure was measured on."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch


def stamp() -> str:
    """Date, hardware and versions, in a line."""
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy", "scipy"))
    return f"{time.strftime('%Y-%m-%d')}, {hardware}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
