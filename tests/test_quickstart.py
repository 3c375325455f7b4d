"""The quickstart as a newcomer runs it, with the bars that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from detr_ft.errors import UserError
from detr_ft.quickstart import run_quickstart


@pytest.mark.alone
@pytest.mark.slow
def test_the_main_job_end_to_end(tmp_path: Path) -> None:
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "detr_ft", "quickstart"], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    minutes = (time.monotonic() - started) / 60
    assert done.returncode == 0, done.stderr
    print(f"quickstart: {minutes:.1f} minutes\n{done.stderr[-1500:]}")
    run = tmp_path / "runs/quickstart"
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["before"]["map"] < 0.10
    assert metrics["map"] >= 0.50
    assert metrics["map_50"] >= 0.80
    assert minutes < 14  # the promise is 4 on two quiet cores; shared ones were seen three times slower
    lines = done.stderr.rstrip().splitlines()[-5:]
    assert "mAP" in lines[0]
    assert "detr-ft demo runs/quickstart" in lines[3]
    assert "detr-ft new" in lines[4]
    report = (run / "report.html").read_text()
    assert report.count("data:image") >= 20
    assert "<svg" in report


def test_a_folder_that_holds_something_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    started = time.monotonic()
    with pytest.raises(UserError, match="not empty"):
        run_quickstart(tmp_path)
    assert time.monotonic() - started < 20
