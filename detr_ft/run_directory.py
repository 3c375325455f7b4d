"""The run directory: the names of its files, and protection of other runs."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detr_ft.errors import InputError
from detr_ft.utils.complete_folder import clean_up, digest_of
from detr_ft.utils.components import code_names
from detr_ft.utils.files import LOCK, check_new_folder, check_writable, writing
from detr_ft.utils.lock import check_free
from detr_ft.utils.yaml import read_located

logger = logging.getLogger(__name__)

# Files and folders of a run, relative to it.
RECIPE = "recipe.yaml"
LOG = "log.jsonl"
METRICS = "metrics.json"
REPORT = "report.html"
REPORT_MARKDOWN = "report.md"
CARD = "README.md"
PREDICTIONS = "predictions.json"
HELD_OUT = "held-out.json"  # names of the images in the validation split
SEEDS = "seeds.json"
EXPORT_METRICS = "export.json"
EXAMPLES = "examples"
DETECTIONS_SUFFIX = "-found"  # of the examples with their detections
WEIGHTS = "model.safetensors"
ONNX = "onnx/model.onnx"
ONNX_8_BITS = "onnx/model_quantized.onnx"
TORCH_EXPORT = "model.pt2"
CHECKPOINTS = "checkpoints"
BEST_CHECKPOINT = "checkpoints/best"
CHECKPOINT_STATE = "state.json"
CHECKPOINT_TENSORS = "training.pt"
RAW = "raw"
PARTIAL = ".partial"
WRITTEN = "written.json"  # SHA-256 of the files that the run wrote, by name
FAILURES = "failures"  # capsules of failed steps, which a restarted run leaves unchanged
_FILES_BEFORE_THE_FIRST_CHECKPOINT = {LOG, RECIPE, HELD_OUT, CHECKPOINTS, PARTIAL, WRITTEN}


def _is_of_a_beginning(name: str) -> bool:
    """Return whether a name is of a file, complete or not, that a run writes before its first checkpoint."""
    written = _FILES_BEFORE_THE_FIRST_CHECKPOINT
    return name in written or (name.startswith(".") and name.removeprefix(".").removesuffix(".partial") in written)


class RunDirectory:
    """The folder of a run: model and processor at its top, log, metrics, recipe and checkpoints."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def refuse_another_run(self) -> None:
        """Raise InputError if the folder is not empty, in use or cannot be written; nothing is written."""
        check_free(self.path)
        with writing(self.path):
            has_run = self.checkpoints.is_dir() or any(self.path.glob(f"seed-*/{CHECKPOINTS}"))
            resume = "resume that run with resume (--resume), " if has_run else ""
            remedy = f"Either {resume}choose another folder (train.output_dir={self.path}-2), or remove it."
            check_new_folder(self.path, remedy, ignored=(FAILURES,))
        check_writable(self.path)

    def clear_beginnings(self) -> None:
        """Remove the files of a run that ended before its first checkpoint, except capsules of failed steps.

        Raises InputError if the folder has other files.
        """
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        left = sorted(names - {FAILURES, LOCK})
        code = self.code_files()
        own = {*code, *(parent for file in code for parent in file.parents if parent.is_relative_to(self.path))}
        foreign = [
            path
            for name in left
            if not _is_of_a_beginning(name)
            for path in [self.path / name, *(self.path / name).rglob("*")]
            if path not in own
        ]
        if foreign:
            raise InputError(
                f"{self.path} is not empty, and has no checkpoint to continue from: {foreign[0]} would be in the way of a new run. "
                f"Move it away, or choose another folder (train.output_dir={self.path}-2)."
            )
        with writing(self.path):
            for name in left:
                path = self.path / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def code_files(self) -> list[Path]:
        """Return the plain files inside the run that its recipe names as code."""
        try:
            values, _ = read_located(self.path / RECIPE)
        except InputError:
            return []
        data = values.get("data")
        names = code_names([values.get("criterion"), data.get("augment") if isinstance(data, dict) else None])
        inside = [name for name in names if (self.path / name).resolve() == self.path.resolve() / name]  # and no link
        return [self.path / name for name in inside if not Path(name).is_absolute() and (self.path / name).is_file()]

    def reopen(self) -> None:
        """Remove the results of a finished run, its metrics first, and incomplete files: it is resumed."""
        self.remove(METRICS, REPORT, PREDICTIONS)
        with writing(self.path):
            clean_up(self.path)
        try:
            self.recorded()
        except InputError as error:  # the run writes its files again
            logger.warning("%s A new record is started", error)
            self.start_record()
        shutil.rmtree(self.path / PARTIAL, ignore_errors=True)

    def remove(self, *names: str) -> None:
        """Remove files that the run may have. Raises InputError if one can't be removed."""
        with writing(self.path):
            for name in names:
                (self.path / name).unlink(missing_ok=True)

    def log_lines(self) -> list[bytes]:
        """Return the lines of `log.jsonl`. Raises InputError if it can't be read."""
        try:
            return (self.path / LOG).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(
                f"{self.path / LOG}: can't be read: {error.strerror or error}. Restore the file."
            ) from error

    def create(self) -> None:
        """Create the folder. Raises InputError if it has another run or cannot be written."""
        self.refuse_another_run()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOG).touch()
        self.start_record()

    def log(self, row: dict[str, Any]) -> None:
        """Add a row to `log.jsonl`."""
        with writing(self.path), (self.path / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file at the top of the run, completely or not at all."""
        return self.write_bytes(name, text.encode("utf-8"))

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file of the run, completely or not at all."""
        target = self.path / name
        partial = target.with_name(f".{target.name}.partial")
        with writing(target):
            if target.parent != self.path:
                target.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            if name != LOG:  # which grows
                self._add_to_record({name: hashlib.sha256(content).hexdigest()})  # before the file has its name
            partial.replace(target)
        return target

    def start_record(self) -> None:
        """Start the record of the files that the run writes. Runs of earlier versions have none."""
        with writing(self.path):
            (self.path / WRITTEN).write_text("{}\n", encoding="utf-8")

    def record(self, names: Iterable[str]) -> None:
        """Add files that were written by other means than `write_bytes` to the record, if the run has one."""
        if (self.path / WRITTEN).is_file():
            self._add_to_record({name: digest_of(self.path / name) for name in names})

    def recorded(self) -> dict[str, str] | None:
        """Return SHA-256 of the files that the run wrote, by name; None without a record. Raises InputError."""
        file = self.path / WRITTEN
        if not file.is_file():
            return None
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}: can't be read: {error}. Restore it.") from error
        if not isinstance(content, dict):
            raise InputError(f"{file}: must be a mapping, got {type(content).__name__}. Restore it.")
        return content

    def _add_to_record(self, digests: dict[str, str]) -> None:
        recorded = self.recorded()
        if recorded is None:
            return
        target = self.path / WRITTEN
        partial = target.with_name(f".{WRITTEN}.partial")
        with writing(target):
            partial.write_text(json.dumps(recorded | digests, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            partial.replace(target)
