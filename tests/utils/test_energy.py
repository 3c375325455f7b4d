"""Energy since the start of the meter; None without a counter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from detr_ft.utils import energy
from detr_ft.utils.energy import EnergyMeter


def test_it_counts_from_when_it_is_made() -> None:
    joules = [100.0, 7.0]
    meter = EnergyMeter([lambda: joules[0], lambda: joules[1]])
    assert meter.watt_hours() == 0.0
    joules[0] += 3600
    joules[1] += 1800
    assert meter.watt_hours() == pytest.approx(1.5)


def test_a_reset_counter_and_a_missing_counter_give_none() -> None:
    joules = [100.0]
    meter = EnergyMeter([lambda: joules[0]])
    joules[0] = 1.0
    assert meter.watt_hours() is None
    assert EnergyMeter([]).watt_hours() is None


def test_unreadable_files_of_processors_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_POWERCAP", tmp_path)
    for name, text in (("intel-rapl:0", "5000000\n"), ("intel-rapl:1", "no number\n"), ("intel-rapl:0:0", "1\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(text)
    os.mkdir(tmp_path / "intel-rapl:2")  # without a file
    monkeypatch.setattr(energy, "_of_gpus", list)
    meter = EnergyMeter()
    (tmp_path / "intel-rapl:0/energy_uj").write_text("41000000\n")
    assert meter.watt_hours() == pytest.approx(0.01)
