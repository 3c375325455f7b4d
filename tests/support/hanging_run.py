"""A run that hangs, as a script: `hanging_run.py CHECKPOINT OUTPUT PLACE HOW WORKERS`.

PLACE is augmentation, loss, callback (of an evaluation), or scan (of images, without a run).
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.random import Generator
from torch import Tensor

from detr_ft.cli.console import exit_with_status
from detr_ft.criterion import BoxL1Loss, HungarianMatcher, SetCriterion
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.sample import Sample
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.callbacks import Callback
from detr_ft.utils.parallel import map_rows
from support.small_run import unprepared_trainer

FIRST_HANG = 13  # of the images or calls: in the second epoch of 12 images


def sleep() -> None:
    while True:
        time.sleep(0.05)


def swallow() -> None:
    """Sleep, and ignore every exception, as careless code does."""
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.05)


def read_pipe() -> None:
    os.read(os.pipe()[0], 1)


def lock_twice() -> None:
    """Wait in C for a lock that nothing releases; signals do not interrupt this wait."""
    mutex, library = ctypes.create_string_buffer(128), ctypes.CDLL(None)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


HANGS: dict[str, Callable[[], None]] = {one.__name__: one for one in (sleep, swallow, read_pipe, lock_twice)}


def hang(folder: Path, how: str) -> None:
    """Write the file `hangs` and hang."""
    (folder / "hangs").touch()
    HANGS[how]()


@dataclass(frozen=True)
class HangingAugmentation:
    """Writes the process that makes an example to `maker-PID`."""

    folder: Path
    how: str

    def __call__(self, sample: Sample, random: Generator, another: Callable[[], Sample]) -> Sample:
        with (self.folder / f"maker-{os.getpid()}").open("a") as file:
            file.write(".")
        made = sum(file.stat().st_size for file in self.folder.glob("maker-*"))
        if made >= FIRST_HANG and self.how:
            hang(self.folder, self.how)
        return sample


_calls = itertools.count(1)


@dataclass(frozen=True)
class HangingLoss(BoxL1Loss):
    folder: str = ""
    how: str = ""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        if next(_calls) == FIRST_HANG:
            hang(Path(self.folder), self.how)
        return super().__call__(predictions, targets, matches)


class HangingCallback(Callback):
    def __init__(self, folder: Path, how: str) -> None:
        self._folder, self._how = folder, how

    def on_evaluate(self, *arguments: Any) -> None:
        hang(self._folder, self._how)


def main(checkpoint: str, output: str, place: str, how: str, workers: str) -> None:
    """Train or scan; the exit status is that of the command."""
    multiprocessing.set_start_method("fork", force=True)  # workers start faster
    folder = Path(output).parent
    if place == "scan":
        rows = generate("workshop?train=12&validation=6&edge=64")["train"]
        exit_with_status(lambda: list(map_rows(lambda row: hang(folder, how), rows, "scanning")))()
    losses = [HangingLoss(folder=str(folder), how=how)] if place == "loss" else [BoxL1Loss()]
    trainer = unprepared_trainer(
        Path(checkpoint),
        Path(output),
        criterion=SetCriterion(HungarianMatcher(), losses),
        augment=HangingAugmentation(folder, how if place == "augmentation" else ""),
        callbacks=[HangingCallback(folder, how)] if place == "callback" else [],
        num_train_epochs=9,
        dataloader_num_workers=int(workers),
    )
    exit_with_status(trainer.train)()


if __name__ == "__main__":
    main(*sys.argv[1:])
