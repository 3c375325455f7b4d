"""Checkpoints: folders `step-N` that are whole or not there, however the process that wrote them ended."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from detr_ft.errors import InputError

logger = logging.getLogger(__name__)

_COMPLETE = "complete.json"  # name and SHA-256 of every other file; written last
_NAME = re.compile(r"step-(\d+)")


class Checkpoints:
    """The checkpoints of a run, the newest `keep` of them."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Write a checkpoint, whole or not at all, then remove those beyond the limit. Answers its folder.

        Files reach the disk before the folder gets its name, and older checkpoints go after that: there is always one.
        Raises InputError where it can't be written, with what was there before as it was.
        """
        target, partial = self.folder / f"step-{step}", self.folder / f".partial-step-{step}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            sums = {name: _write(partial / name, content) for name, content in files.items()}
            _write(partial / _COMPLETE, json.dumps(sums, indent=1).encode())
            _flush(partial)
            if target.exists():  # of a run that was cut off after it, and went on from an earlier one
                replaced = self.folder / f".partial-replaced-{step}"
                shutil.rmtree(replaced, ignore_errors=True)
                target.rename(replaced)  # two renames, not a removal, lie between one whole folder and the next
            partial.rename(target)
            _flush(self.folder)
            self.remove_partial()
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            left = self.newest()
            raise InputError(
                f"{target}: the checkpoint can't be written: {error.strerror or error}. "
                + (f"Make room, and --resume goes on from {left.name}" if left else "No checkpoint was written before")
            ) from error
        # Of a later step there may be a damaged one, from before the run went on from an earlier step: it counts for none.
        for old in [one for one in self._steps() if one <= step][: -self.keep]:
            shutil.rmtree(self.folder / f"step-{old}", ignore_errors=True)
        return target

    def newest(self) -> Path | None:
        """The newest checkpoint whose files are all as they were written; what isn't is told on the log and passed over."""
        for step in reversed(self._steps()):
            folder = self.folder / f"step-{step}"
            fault = _fault(folder)
            if fault is None:
                return folder
            logger.warning("%s is damaged, an earlier checkpoint is looked for: %s", folder, fault)
        return None

    def remove_partial(self) -> None:
        """Remove what a process that was killed left half written."""
        for partial in self.folder.glob(".partial-*"):
            shutil.rmtree(partial, ignore_errors=True)

    def _steps(self) -> list[int]:
        found = [_NAME.fullmatch(path.name) for path in self.folder.glob("step-*")]
        return sorted(int(match[1]) for match in found if match)


def _write(path: Path, content: bytes) -> str:
    """Write a file through to the disk, and answer its SHA-256."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _flush(folder: Path) -> None:
    """Make the names in a folder reach the disk; Windows has no way to ask for it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fault(folder: Path) -> str | None:
    try:
        sums = json.loads((folder / _COMPLETE).read_bytes())
        for name, expected in sums.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                return f"{name} is not as it was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"{_COMPLETE} or what it names can't be read: {error}"
    return None
