"""SIGINT and SIGTERM end a run whatever it waits for, and leave no worker."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from signal import SIGINT, SIGTERM

import psutil
import pytest
from support import hanging_run
from support.processes import ForkedProcess

pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
AGAIN = 2.2  # seconds after which the same signal is a second one
MAX_SECONDS = 8.0  # from the last signal to the end, on a busy machine


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
    sent_at = time.monotonic()
    _, message = process.communicate(timeout=60)
    print(message)
    assert time.monotonic() - sent_at < MAX_SECONDS, message
    deadline = time.monotonic() + 2
    while workers_left(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers_left(folder) == []
    return process.returncode


@pytest.mark.parametrize(
    ("how", "workers", "number"), [("sleep", 0, SIGTERM), ("lock_twice", 0, SIGINT), ("swallow", 2, SIGTERM), ("lock_twice", 2, SIGINT)]
)  # fmt: skip
def test_a_signal_ends_the_wait_for_a_hanging_image_with_a_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path, how: str, workers: int, number: signal.Signals
) -> None:
    process = start(tiny_checkpoint, tmp_path, "augmentation", how, workers)
    time.sleep(0.5)  # for the steps of the images before
    process.send_signal(number)
    assert status_of(process, tmp_path) == 128 + number
    (checkpoint,) = (tmp_path / "run/checkpoints").glob("step-*")
    assert checkpoint.name == "step-3"


@pytest.mark.parametrize(
    ("place", "how", "first", "second", "pause"),
    [
        ("loss", "lock_twice", SIGTERM, SIGTERM, AGAIN),
        ("loss", "lock_twice", SIGINT, SIGTERM, 0.3),
        ("loss", "swallow", SIGTERM, SIGINT, 0.3),
        ("evaluation", "sleep", SIGINT, SIGINT, AGAIN),
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
