"""SIGINT and SIGTERM end a run whatever it waits for, and leave no worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from support import hanging_run
from support.processes import ForkedProcess
from support.small_run import make_trainer

from detr_ft.errors import Interrupted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
AGAIN = 2.2  # seconds after which the same signal is a second one
MAX_SECONDS = 30.0  # from the last signal to the end, on a busy machine; hangs take longer


def start(checkpoint: Path, folder: Path, place: str, how: str, workers: int) -> ForkedProcess:
    """Start a run that hangs, and return once it does."""
    arguments = [str(checkpoint), str(folder / "run"), place, how, str(workers)]
    process = ForkedProcess(str(hanging_run.__file__), *arguments, cwd=folder, env={})
    deadline = time.monotonic() + 60
    while not (folder / "hangs").exists():
        assert time.monotonic() < deadline, process.communicate(timeout=1)
        assert psutil.pid_exists(process.pid), process.communicate(timeout=1)
        time.sleep(0.02)
    return process


def workers_left(folder: Path) -> list[int]:
    """The processes that made examples and still run."""
    made = {int(file.name.removeprefix("maker-")) for file in folder.glob("maker-*")}
    return [one for one in made if psutil.pid_exists(one) and psutil.Process(one).status() != psutil.STATUS_ZOMBIE]


def status_of(process: ForkedProcess, folder: Path) -> int | None:
    """The exit status of a process that has to end soon, with its workers."""
    process.communicate(timeout=MAX_SECONDS)
    deadline = time.monotonic() + 2
    while workers_left(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_left(folder) == []
    return process.returncode


@pytest.mark.parametrize(
    ("how", "workers", "number"), [("sleep", 0, SIGTERM), ("lock_twice", 0, SIGINT), ("swallow", 2, SIGTERM)]
)  # fmt: skip
def test_a_signal_ends_the_wait_for_a_hanging_image_with_a_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, how: str, workers: int, number: signal.Signals
) -> None:
    process = start(tiny_checkpoint, tmp_path, "augmentation", how, workers)
    time.sleep(0.5)  # for the steps of the images before
    process.send_signal(number)
    assert status_of(process, tmp_path) == 128 + number
    (checkpoint,) = (tmp_path / "run/checkpoints").glob("step-*")
    assert checkpoint.name in ("step-1", "step-2", "step-3")  # workers are ahead of the steps
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", checkpoint=checkpoint, num_train_epochs=1)
    assert trainer.progress.step == int(checkpoint.name[-1])


@pytest.mark.parametrize(
    ("place", "how", "first", "second", "pause"),
    [
        ("loss", "lock_twice", SIGTERM, SIGTERM, AGAIN),
        ("loss", "lock_twice", SIGINT, SIGTERM, 0.3),
        pytest.param("loss", "swallow", SIGTERM, SIGINT, 0.3, marks=pytest.mark.slow),
        pytest.param("callback", "sleep", SIGINT, SIGINT, AGAIN, marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_ends_the_process_whatever_it_does(
    tiny_checkpoint: Path, tmp_path: Path, place: str, how: str, first: signal.Signals, second: signal.Signals, pause: float
) -> None:  # fmt: skip
    process = start(tiny_checkpoint, tmp_path, place, how, 2)
    process.send_signal(first)
    time.sleep(pause)
    assert process.returncode is None
    process.send_signal(second)
    assert status_of(process, tmp_path) == 128 + second


def test_a_killed_run_leaves_no_worker_that_hangs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    process = start(tiny_checkpoint, tmp_path, "augmentation", "lock_twice", 2)
    process.kill()
    assert status_of(process, tmp_path) == -signal.SIGKILL


@pytest.mark.parametrize(("number", "status"), [(SIGINT, 130), (SIGTERM, -SIGTERM)])
def test_a_signal_ends_a_scan_of_images_that_hangs(
    tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = start(tiny_checkpoint, tmp_path, "scan", "lock_twice", 0)
    process.send_signal(number)
    assert status_of(process, tmp_path) == status  # as a shell has it, 128 plus the signal


def test_a_run_stopped_while_it_waits_for_an_image_resumes_exactly(tiny_checkpoint: Path, tmp_path: Path) -> None:
    make_trainer(tiny_checkpoint, tmp_path / "whole").train()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    at = trainer.loader.examples.at

    def interrupting(epoch: int, index: int) -> Any:
        if trainer.progress.step == 4:
            os.kill(os.getpid(), SIGTERM)
        return at(epoch, index)

    trainer.loader.examples.at = interrupting  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.train()
    checkpoint = tmp_path / "run/checkpoints/step-4"
    make_trainer(tiny_checkpoint, tmp_path / "run", checkpoint=checkpoint).train()
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)
