"""Speed of the first steps, and the time that is left."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.small_run import make_trainer

from detr_ft.training.monitor import eta
from detr_ft.training.monitor.eta import RemainingTime, SpeedWatch, StepTimer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only element."""
    seconds = [0.0]
    monkeypatch.setattr(eta.time, "monotonic", lambda: seconds[0])
    return seconds


def test_twenty_steps_are_timed_after_two(clock: list[float]) -> None:
    def batches() -> Iterator[int]:
        for number in range(40):
            clock[0] += 30.0 if number < 2 else 0.4
            yield number

    timer, estimates = StepTimer(), []
    for number in timer.timed(batches()):
        clock[0] += 0.6
        estimates.append(timer.after_step(8, 1000 - number, None))
        clock[0] += 100.0 * (number == 10)  # an evaluation
    ((index, estimate),) = [(index, estimate) for index, estimate in enumerate(estimates) if estimate]
    assert index == 21
    assert estimate.startswith("8.0 images a second")
    assert "979 steps take about 16 minutes" in estimate
    assert "40% of a step is waiting" in estimate
    assert "train.dataloader_num_workers" in estimate


@pytest.mark.parametrize(("limit", "possible"), [(1000.0, None), (50.0, 50)])
def test_a_time_limit_that_ends_the_run_early_is_reported(
    limit: float, possible: int | None, clock: list[float]
) -> None:
    timer, estimates = StepTimer(), []
    for number in timer.timed(range(22)):
        clock[0] += 1.0
        estimates.append(timer.after_step(8, 121 - number, limit))
    estimate = estimates[-1] or ""
    assert ("train.max_minutes" in estimate) == (possible is not None)
    assert f"after about {possible} of these steps" in estimate or possible is None


def test_a_run_logs_the_estimate_once(tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=10, eval_epochs=0).train()
    (line,) = [message for message in caplog.messages if "images a second" in message]
    assert "the remaining 8 steps" in line


def test_a_slow_row_does_not_change_the_remaining_time() -> None:
    left = RemainingTime(1000, None)
    assert [left.after(step, 1.0) for step in (100, 200)] == ["15:00", "13:20"]
    assert left.after(400, 60.0) == "10:00"


def test_a_new_speed_changes_the_remaining_time_after_several_rows() -> None:
    left = RemainingTime(1000, None)
    for step in range(10, 100, 10):
        left.after(step, 1.0)
    times = [left.after(step, 2.0) for step in range(100, 600, 100)]
    assert times[0] == "15:00"
    assert times[-1] == "16:40"


def test_the_remaining_time_is_at_most_the_limit(clock: list[float]) -> None:
    left = RemainingTime(1000, 90.0)
    clock[0] = 30.0
    assert left.after(10, 1.0) == "1:00"
    clock[0] = 100.0
    assert left.after(20, 1.0) == "0:00"


def test_a_run_that_becomes_slow_is_reported_once_until_it_recovers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eta.ProcessorLoad, "by_others", lambda _: 1.9)
    monkeypatch.setattr(eta.torch, "get_num_threads", lambda: 2)
    watch = SpeedWatch()
    speeds = [*[90.0] * 10, 2.0, 90.0, 90.0, *[2.0] * 6, *[90.0] * 4, *[2.0] * 6]
    warnings = [watch.after(speed) for speed in speeds]
    # The median of three rows is slow at the second row of a slow time; a single slow row is none.
    assert [row for row, warning in enumerate(warnings) if warning] == [14, 24]
    assert "90.0 to 2.0 images a second; other processes use 1.9 of" in str(warnings[14])
    assert "OMP_NUM_THREADS=1" in str(warnings[14])


def test_a_slow_disk_is_not_blamed_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eta.ProcessorLoad, "by_others", lambda _: 0.1)
    monkeypatch.setattr(eta.torch, "get_num_threads", lambda: 2)
    watch = SpeedWatch()
    (warning,) = filter(None, [watch.after(speed) for speed in [90.0] * 10 + [2.0] * 3])
    assert "OMP_NUM_THREADS" not in warning
