"""The run directory: what a run writes, where, and that it never writes over another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from detr_ft.errors import InputError
from detr_ft.utils.files import writing

# Files and folders of a run, relative to it.
RECIPE = "recipe.yaml"
LOG = "log.jsonl"
METRICS = "metrics.json"
REPORT = "report.html"
REPORT_MARKDOWN = "report.md"
PREDICTIONS = "predictions.json"
HELD_OUT = "held-out.json"  # the images of the validation split
SEEDS = "seeds.json"
EXPORT_METRICS = "export.json"
EXAMPLES = "examples"
CHECKPOINTS = "checkpoints"
BEST_CHECKPOINT = "checkpoints/best"
RAW = "raw"
PARTIAL = ".partial"
FAILURES = "failures"  # capsules of steps that failed, which a run that begins again leaves where they are
_BEGINNINGS = {LOG, RECIPE, HELD_OUT, CHECKPOINTS, PARTIAL}


class RunDirectory:
    """Model and processor at the top (loads in transformers), `log.jsonl`, `metrics.json`, `recipe.yaml`, `checkpoints/`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the run are."""
        return self.path / CHECKPOINTS

    def refuse_another_run(self) -> None:
        """Raise InputError where the folder holds something, or can't be a folder. Makes nothing."""
        with writing(self.path):
            if self.path.exists() and any(one.name != FAILURES for one in self.path.iterdir()):
                going_on = "go on with that run (--resume), " if self.checkpoints.is_dir() else ""
                raise InputError(
                    f"{self.path} is not empty: it may hold another run, and nothing is written over. "
                    f"Either {going_on}choose another folder (train.output_dir={self.path}-2), or remove it"
                )

    def clear_beginnings(self) -> None:
        """Remove what a run left that ended before its first checkpoint, but for capsules of steps that failed.

        Raises InputError where there is anything else.
        """
        left = sorted({path.name for path in self.path.iterdir()} - {FAILURES}) if self.path.is_dir() else []
        if not left:
            return
        foreign = [name for name in left if name not in _BEGINNINGS]
        if foreign or any(self.checkpoints.glob("step-*")):
            self.refuse_another_run()
        for name in left:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def reopen(self) -> None:
        """Take away what tells of an end, and what was left half written: the run goes on."""
        for name in (METRICS, REPORT):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / PARTIAL, ignore_errors=True)

    def log_lines(self) -> list[str]:
        """The lines of `log.jsonl`."""
        file = self.path / LOG
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def create(self) -> None:
        """Make the folder; raises InputError where it holds another run, or can't be written."""
        self.refuse_another_run()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOG).touch()

    def log(self, row: dict[str, Any]) -> None:
        """Add a row to `log.jsonl`."""
        with writing(self.path), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file at the top of the run, whole or not at all."""
        target = self.path / name
        partial = target.with_name(f".{name}.partial")
        with writing(target):
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        return target
