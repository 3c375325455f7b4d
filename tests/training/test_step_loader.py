"""Failures of reading and augmentation: time limits, exceptions and killed workers."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from numpy.random import Generator
from support.small_run import make_trainer

from detr_ft.data import images
from detr_ft.data.pipeline.sample import Sample
from detr_ft.errors import InputError
from detr_ft.training import step_loader
from detr_ft.training.loader_workers import WorkerError
from detr_ft.training.step_loader import ExampleError, StepBatch

Another = Callable[[], Sample]
HANG_SECONDS = 30.0  # at most, of a thread that a test leaves behind


@dataclass(frozen=True)
class Sleeps:
    def __call__(self, sample: Sample, random: Generator, another: Another) -> Sample:
        time.sleep(HANG_SECONDS)
        return sample


@dataclass(frozen=True)
class KeepsTheLock:
    """Runs code in C that keeps Python's lock."""

    def __call__(self, sample: Sample, random: Generator, another: Another) -> Sample:
        ctypes.PyDLL(None).sleep(int(HANG_SECONDS))
        return sample


@dataclass(frozen=True)
class Raises:
    error: BaseException

    def __call__(self, sample: Sample, random: Generator, another: Another) -> Sample:
        raise self.error


@dataclass(frozen=True)
class KillsItself:
    number: int

    def __call__(self, sample: Sample, random: Generator, another: Another) -> Sample:
        os.kill(os.getpid(), self.number)
        return sample


def first_batch(start: Path, folder: Path, **arguments: Any) -> StepBatch:
    return next(make_trainer(start, folder, **arguments).loader.steps())


@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmentation_that_hangs_names_image_and_line(tiny_checkpoint: Path, tmp_path: Path, workers: int) -> None:
    with pytest.raises(
        InputError, match=r"^image \d+: augmentation took longer than 2 s \(.*test_step_loader\.py, line \d+\)"
    ):
        first_batch(
            tiny_checkpoint, tmp_path / "run", augment=Sleeps(), dataloader_num_workers=workers, dataloader_timeout=2
        )


def test_a_file_whose_reading_hangs_is_named(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "upright_rgb", lambda image: time.sleep(HANG_SECONDS))
    with pytest.raises(InputError, match=r"^image \d+: reading the file took longer than 0.5 s\. .*dataloader_timeout"):
        first_batch(tiny_checkpoint, tmp_path / "run", dataloader_timeout=0.5)


def test_a_worker_that_cannot_report_is_ended(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_loader, "_STUCK_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"hung while the run waited for image \d+, image \d+, .*longer than 0.5 s"):
        first_batch(
            tiny_checkpoint, tmp_path / "run", augment=KeepsTheLock(), dataloader_num_workers=1, dataloader_timeout=0.5
        )
    assert "test_step_loader.py" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "error", [ValueError("wrong"), SystemExit(0), KeyboardInterrupt(), GeneratorExit(), StopIteration()]
)
def test_any_exception_of_an_augmentation_names_image_and_line(
    tiny_checkpoint: Path, tmp_path: Path, error: BaseException, workers: int
) -> None:
    message = rf"^image \d+: augmentation failed: {type(error).__name__}: .* \(.*test_step_loader\.py, line \d+\)"
    with pytest.raises(ExampleError, match=message):
        first_batch(tiny_checkpoint, tmp_path / "run", augment=Raises(error), dataloader_num_workers=workers)


def test_an_unreadable_image_of_a_worker_is_the_error_of_its_file(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(image: object) -> None:
        raise images.ImageError("x.jpg", "truncated", "the image is damaged")

    monkeypatch.setattr(images, "upright_rgb", unreadable)
    with pytest.raises(InputError, match=r"^x\.jpg: the image is damaged$"):
        first_batch(tiny_checkpoint, tmp_path / "run", dataloader_num_workers=1)


def test_a_killed_worker_is_no_failure_of_a_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_checkpoint, tmp_path / "run", augment=KillsItself(signal.SIGKILL), dataloader_num_workers=2
    )
    with pytest.raises(WorkerError, match=r"signal 9 .* waited for image \d+, .*fewer train\.dataloader_num_workers"):
        trainer.train()
    assert not (tmp_path / "run/failures").exists()


def test_a_worker_killed_during_a_step_does_not_fail_the_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", dataloader_num_workers=2, num_train_epochs=40)
    run, failed = trainer.stepper.forward_backward.run, []

    def killing(inputs: Any, weight: float) -> Any:
        if trainer.progress.step == 2 and not failed:
            workers = psutil.Process().children()
            failed.extend(workers)
            for worker in workers:
                worker.kill()
            time.sleep(0.5)  # and the signal of their end would interrupt this
        return run(inputs, weight)

    trainer.stepper.forward_backward.run = killing  # type: ignore[method-assign]
    with pytest.raises(WorkerError, match="signal 9"):
        trainer.train()
    assert trainer.progress.step >= 3
    assert not (tmp_path / "run/failures").exists()
