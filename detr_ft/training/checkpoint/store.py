"""The folders of checkpoints, `step-N`: complete or absent, even if their writer is killed."""

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

_DIGESTS = "complete.json"  # name and SHA-256 of every other file; written last
_NAME = re.compile(r"step-(\d+)")


class Checkpoints:
    """The checkpoints of a run, the newest `limit` of them."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def folder_of(self, step: int) -> Path:
        """Return the folder of the checkpoint of a step."""
        return self.folder / f"step-{step}"

    def save(self, step: int, files: Mapping[str, bytes]) -> Path:
        """Write a checkpoint, completely or not at all, remove those beyond the limit, return its folder.

        Files reach the disk before the folder gets its name, and older checkpoints are removed after that: there is always
        one. Raises InputError if it cannot be written; earlier files are then unchanged.
        """
        target, partial = self.folder_of(step), self.folder / f".partial-step-{step}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            digests = {name: _write(partial / name, content) for name, content in files.items()}
            _write(partial / _DIGESTS, json.dumps(digests, indent=1).encode())
            _flush(partial)
            if target.exists():  # of a run that was killed after it, and resumed from an earlier one
                replaced = self.folder / f".partial-replaced-{step}"
                shutil.rmtree(replaced, ignore_errors=True)
                target.rename(replaced)  # only two renames separate the old folder from the new one
            partial.rename(target)
            _flush(self.folder)
            self.remove_partial()
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            left = self.newest()
            raise InputError(
                f"{target}: the checkpoint can't be written: {error.strerror or error}. "
                + (
                    f"Free space, then --resume from {left.name}."
                    if left
                    else "Free space; there is no earlier checkpoint."
                )
            ) from error
        # Later steps, of before the run resumed from an earlier one, may be damaged: they do not count.
        for old in [saved for saved in self._steps() if saved <= step][: -self.limit]:
            shutil.rmtree(self.folder_of(old), ignore_errors=True)
        return target

    def newest(self) -> Path | None:
        """Return the newest checkpoint with unchanged files; damaged ones are logged and skipped."""
        for step in reversed(self._steps()):
            folder = self.folder_of(step)
            fault = _fault(folder)
            if fault is None:
                return folder
            logger.warning("%s is damaged, searching for an earlier checkpoint: %s", folder, fault)
        return None

    def remove_partial(self) -> None:
        """Remove the incomplete folders of a killed process."""
        for partial in self.folder.glob(".partial-*"):
            shutil.rmtree(partial, ignore_errors=True)

    def _steps(self) -> list[int]:
        matches = [_NAME.fullmatch(path.name) for path in self.folder.glob("step-*")]
        return sorted(int(match[1]) for match in matches if match)


def _write(path: Path, content: bytes) -> str:
    """Write a file through to the disk and return its SHA-256."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(content).hexdigest()


def _flush(folder: Path) -> None:
    """Flush the names in a folder to the disk; Windows has no call for it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _fault(folder: Path) -> str | None:
    try:
        digests = json.loads((folder / _DIGESTS).read_bytes())
        for name, expected in digests.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected:
                return f"{name} changed after it was written"
    except (OSError, ValueError, AttributeError) as error:
        return f"{_DIGESTS} or a file in it cannot be read: {error}"
    return None
