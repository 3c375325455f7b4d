"""The quickstart as a newcomer runs it, with the bars that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detr_ft.errors import InputError
from detr_ft.workflows.quickstart import quickstart

# Seconds of a bare training step on two quiet cores, for which the four minutes are promised. A machine that takes longer
# over the model alone gets as much longer.
QUIET_STEP = 0.1


def bare_step() -> float:
    """Seconds of a step of the model with the stock loss, in a process of its own."""
    script = Path(__file__).parents[1] / "support/step_benchmark.py"
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.alone
@pytest.mark.slow
def test_the_quickstart_end_to_end(tmp_path: Path) -> None:
    before = bare_step()
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "detr_ft", "quickstart"], cwd=tmp_path, capture_output=True, text=True, timeout=1800
    )
    minutes = (time.monotonic() - started) / 60
    slowness = max(1.0, (before + bare_step()) / 2 / QUIET_STEP)
    assert done.returncode == 0, done.stderr
    print(f"quickstart: {minutes:.1f} minutes, machine {slowness:.1f} times slower\n{done.stderr[-1500:]}")
    run = tmp_path / "runs/quickstart"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["before"]["map"] < 0.10
    assert metrics["map"] >= 0.50
    assert metrics["map_50"] >= 0.80
    assert minutes < 4 * slowness
    lines = done.stderr.rstrip().splitlines()[-5:]
    assert "mAP" in lines[0]
    assert "detr-ft demo runs/quickstart" in lines[3]
    assert "detr-ft new" in lines[4]
    report = (run / "report.html").read_text()
    assert report.count("data:image") >= 20
    assert "<svg" in report


def test_a_folder_with_files_is_refused_before_data_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.delattr("detr_ft.workflows.quickstart.read_source")
    with pytest.raises(InputError, match="not empty"):
        quickstart(tmp_path)
