"""How long a run still goes on, as people are told."""

from __future__ import annotations

import pytest

from detr_ft.training.monitor import eta
from detr_ft.training.monitor.eta import Remaining


def test_a_slow_row_is_no_trend() -> None:
    left = Remaining(1000, None)
    assert [left.after(step, 1.0) for step in (100, 200)] == ["15:00", "13:20"]
    assert left.after(400, 60.0) == "10:00"


def test_a_new_pace_is_taken_up() -> None:
    left = Remaining(1000, None)
    for step in range(10, 100, 10):
        left.after(step, 1.0)
    told = [left.after(step, 2.0) for step in range(100, 600, 100)]
    assert told[0] == "15:00"
    assert told[-1] == "16:40"


def test_never_longer_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(eta.time, "monotonic", lambda: clock[0])
    left = Remaining(1000, 90.0)
    clock[0] = 30.0
    assert left.after(10, 1.0) == "1:00"
    clock[0] = 100.0
    assert left.after(20, 1.0) == "0:00"
