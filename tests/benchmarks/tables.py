"""Output of a benchmark: Markdown while it runs, and JSON, both with the machine and the versions."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_MEASURED = (
    "torch",
    "transformers",
    "numpy",
    "scipy",
    "lapx",
    "pycocotools",
    "faster-coco-eval",
    "onnxruntime",
    "ultrafast-pycocotools",
    "hotcoco",
    "vernier",
    "torchmetrics",
    "rfdetr",
    "torch-linear-assignment",
)


class Tables:
    """The tables of one run of a script, printed row by row; `--json FILE` writes them there as well."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._content: dict[str, Any] = {"machine": stamp(), "command": " ".join(sys.argv), "tables": [], "notes": []}
        self._write()  # fails before the measurement if the file cannot be written
        print(f"{stamp()}\n", flush=True)

    def begin(self, columns: Mapping[str, str]) -> None:
        """Start a table with these headings, each with the format of its numbers."""
        self._columns = columns
        self._content["tables"].append({"columns": list(columns), "rows": []})
        first = "" if len(self._content["tables"]) == 1 else "\n"
        print(f"{first}| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: Any) -> None:
        """Add a row to the last table; None stands for a value that was not measured."""
        self._content["tables"][-1]["rows"].append(
            [one if isinstance(one, int | float | None) else str(one) for one in cells]
        )
        shown = [
            "–" if one is None else format(one, form) for one, form in zip(cells, self._columns.values(), strict=True)
        ]
        print(f"| {' | '.join(shown)} |", flush=True)
        self._write()

    def note(self, words: str) -> None:
        """Add a note below the tables."""
        self._content["notes"].append(words)
        print(f"\n{words}", flush=True)
        self._write()

    def _write(self) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps(self._content, indent=2) + "\n")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser of a script's own options, with `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all values to this file")
    return parser


def stamp() -> str:
    """Date, hardware and versions, in a line."""
    hardware = torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    return ", ".join([time.strftime("%Y-%m-%d"), hardware, cores, *filter(None, map(_version, _MEASURED))])


def _version(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
