"""The first steps of a run tell how long it will take."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.small_run import make_trainer

from detr_ft.training.monitor import eta as pace
from detr_ft.training.monitor.eta import Pace


def test_twenty_steps_tell_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])

    def works() -> Iterator[int]:
        for number in range(40):
            clock[0] += 30.0 if number < 2 else 0.4
            yield number

    one, told = Pace(), []
    for number in one.timed(works()):
        clock[0] += 0.6
        told.append(one.step(8, 1000 - number, None))
        clock[0] += 100.0 * (number == 10)  # an evaluation
    said = [(place, words) for place, words in enumerate(told) if words]
    ((place, words),) = said
    assert place == 21
    assert words.startswith("8.0 images a second on this process: the 979 steps that are left take about 16 minutes")
    assert words.endswith(
        "40 % of a step is waiting for images; train.dataloader_num_workers reads them beside the steps"
    )


@pytest.mark.parametrize(("limit", "able"), [(1000.0, None), (50.0, 50)])
def test_a_limit_that_ends_the_run_before_is_told(
    limit: float, able: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: clock[0])
    one, said = Pace(), []
    for number in one.timed(range(22)):
        clock[0] += 1.0
        said.append(one.step(8, 121 - number, limit))
    words = said[-1] or ""
    assert ("train.max_minutes" in words) == (able is not None)
    assert f"ends the run after about {able} of these steps" in words or able is None


def test_a_run_says_it_once(tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=10, eval_epochs=0).train()
    (line,) = [one for one in caplog.messages if "steps that are left" in one]
    assert "the 8 steps that are left take about" in line
