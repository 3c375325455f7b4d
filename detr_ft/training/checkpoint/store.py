"""The folders of checkpoints, `step-N`: complete or absent, even if their writer is killed."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from detr_ft.errors import InputError
from detr_ft.utils.complete_folder import clean_up, fault_of, replacing

logger = logging.getLogger(__name__)

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
        target = self.folder_of(step)
        try:
            with replacing(target) as partial:
                for name, content in files.items():
                    (partial / name).write_bytes(content)
        except OSError as error:
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
            fault = fault_of(folder)
            if fault is None:
                return folder
            logger.warning("%s is damaged, searching for an earlier checkpoint: %s", folder, fault)
        return None

    def faults(self) -> list[str]:
        """Return a sentence for each damaged checkpoint, the newest first."""
        folders = [self.folder_of(step) for step in reversed(self._steps())]
        return [f"{folder}: {fault}" for folder in folders if (fault := fault_of(folder))]

    def remove_partial(self) -> None:
        """Remove the incomplete folders of a killed process."""
        clean_up(self.folder)

    def _steps(self) -> list[int]:
        matches = [_NAME.fullmatch(path.name) for path in self.folder.glob("step-*")]
        return sorted(int(match[1]) for match in matches if match)
