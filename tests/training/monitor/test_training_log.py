from __future__ import annotations

import tracemalloc
from pathlib import Path

from detr_ft.run_directory import RunDirectory
from detr_ft.training.monitor.training_log import TrainLog


def test_a_long_run_has_no_rows_in_memory(tmp_path: Path) -> None:
    log = TrainLog(RunDirectory(tmp_path), writes=True)
    tracemalloc.start()
    for step in range(2000):
        log.write({"step": step, "loss": 1.0, **{f"loss_{term}": float(step + term) for term in range(60)}})
    allocated, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert allocated < 100 * log.rows  # bytes; a row of 60 numbers takes several thousand
    assert log.rows == len(log.losses) == len(log.read()) == 2000


def test_cut_leaves_the_earlier_rows(tmp_path: Path) -> None:
    log = TrainLog(RunDirectory(tmp_path), writes=True)
    rows = [{"step": 1, "loss": 3.0}, {"step": 1, "map": 0.1}, {"step": 2, "loss": 2.0}, {"step": 2, "map": 0.2}]
    for row in rows:
        log.write(row)
    log.cut(3)
    assert log.read() == rows[:3]
    assert (log.rows, log.losses, log.last_step, log.evaluations) == (3, [3.0, 2.0], rows[2], [rows[1]])
