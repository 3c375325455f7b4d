"""What a benchmark tells: Markdown as it comes, JSON at the end, both with the machine and the versions it was measured on."""

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
        self._told: dict[str, Any] = {"machine": stamp(), "command": " ".join(sys.argv), "tables": [], "notes": []}
        self._write()  # where it can't be written, that is told before anything is measured
        print(f"{stamp()}\n", flush=True)

    def begin(self, columns: Mapping[str, str]) -> None:
        """A table with these headings, each with the format of its numbers."""
        self._columns = columns
        self._told["tables"].append({"columns": list(columns), "rows": []})
        first = "" if len(self._told["tables"]) == 1 else "\n"
        print(f"{first}| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)

    def row(self, *cells: Any) -> None:
        """A row of the table begun last; None is what was not measured."""
        self._told["tables"][-1]["rows"].append(
            [one if isinstance(one, int | float | None) else str(one) for one in cells]
        )
        shown = [
            "–" if one is None else format(one, form) for one, form in zip(cells, self._columns.values(), strict=True)
        ]
        print(f"| {' | '.join(shown)} |", flush=True)
        self._write()

    def note(self, words: str) -> None:
        """What there is to say beside the tables."""
        self._told["notes"].append(words)
        print(f"\n{words}", flush=True)
        self._write()

    def _write(self) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps(self._told, indent=2) + "\n")


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """A parser of a script's own options, with `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write all figures to this file")
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
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
