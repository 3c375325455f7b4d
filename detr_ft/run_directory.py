"""The run directory: what a run writes, where, and that it never writes over another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from detr_ft.errors import InputError
from detr_ft.models.save import save_as_stock

FAILURES = "failures"  # capsules of steps that failed, which a run that begins again leaves where they are
_BEGINNINGS = {"log.jsonl", "recipe.yaml", "held-out.json", "checkpoints", ".partial"}


class RunDirectory:
    """Model and processor at the top (loads in transformers), `log.jsonl`, `metrics.json`, `recipe.yaml`, `checkpoints/`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints of the run are."""
        return self.path / "checkpoints"

    def refuse_another_run(self) -> None:
        """Raise UserError where the folder holds something, or can't be a folder. Makes nothing."""
        try:
            if self.path.exists() and any(one.name != FAILURES for one in self.path.iterdir()):
                going_on = "go on with that run (--resume), " if self.checkpoints.is_dir() else ""
                raise InputError(
                    f"{self.path} is not empty: it may hold another run, and nothing is written over. "
                    f"Either {going_on}choose another folder (train.output_dir={self.path}-2), or remove it"
                )
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def clear_beginnings(self) -> None:
        """Remove what a run left that ended before its first checkpoint, but for capsules of steps that failed.

        Raises UserError where there is anything else.
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
        for name in ("metrics.json", "report.html"):
            (self.path / name).unlink(missing_ok=True)
        shutil.rmtree(self.path / ".partial", ignore_errors=True)

    def log_lines(self) -> list[str]:
        """The lines of `log.jsonl`."""
        file = self.path / "log.jsonl"
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []

    def create(self) -> None:
        """Make the folder; raises UserError where it holds another run, or can't be written."""
        self.refuse_another_run()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "log.jsonl").touch()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def log(self, row: dict[str, Any]) -> None:
        """Add a row to `log.jsonl`."""
        try:
            with (self.path / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file at the top of the run, whole or not at all."""
        target = self.path / name
        partial = target.with_name(f".{name}.partial")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(target)
        except OSError as error:
            raise _unwritable(target, error) from error
        return target

    def save_model(self, model: PreTrainedModel, processor: Any, folder: str = "") -> Path:
        """Save model and processor below the run, whole or not at all, and answer where.

        They are written beside their place first, so that a failure leaves what was there before.
        """
        target = self.path / folder
        partial = self.path / ".partial"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_as_stock(model, partial)
            processor.save_pretrained(partial)
            target.mkdir(parents=True, exist_ok=True)
            for file in partial.iterdir():
                file.replace(target / file.name)
            partial.rmdir()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _unwritable(target, error) from error
        return target


def _unwritable(path: Path, error: OSError | SafetensorError) -> InputError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return InputError(f"{path}: can't be written: {why}")
