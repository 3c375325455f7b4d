"""The run directory: what a run writes, where, and that it never writes over another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import PreTrainedModel

from detr_ft.errors import UserError


class RunDirectory:
    """Model and processor at the top (loads in transformers), `log.jsonl`, `metrics.json`, `recipe.yaml`, `checkpoints/`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def refuse_another_run(self) -> None:
        """Raise UserError where the folder holds something, or can't be a folder. Makes nothing."""
        try:
            if self.path.exists() and any(self.path.iterdir()):
                raise UserError(
                    f"{self.path} is not empty: it may hold another run, and nothing is written over. "
                    f"Choose another folder (train.output_dir={self.path}-2), or remove it"
                )
        except OSError as error:
            raise _unwritable(self.path, error) from error

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
            model.save_pretrained(partial)
            processor.save_pretrained(partial)
            target.mkdir(parents=True, exist_ok=True)
            for file in partial.iterdir():
                file.replace(target / file.name)
            partial.rmdir()
        except (OSError, SafetensorError) as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise _unwritable(target, error) from error
        return target


def _unwritable(path: Path, error: OSError | SafetensorError) -> UserError:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return UserError(f"{path}: can't be written: {why}")
