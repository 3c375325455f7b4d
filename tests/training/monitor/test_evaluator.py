"""Two processes evaluate like one: each image once, for any remainder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from accelerate import Accelerator
from support.distributed_evaluation import SIZES, evaluations
from support.processes import run_together

SCRIPT = Path(__file__).parents[2] / "support/distributed_evaluation.py"


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2])
def test_any_number_of_processes_gives_the_same_metrics(tiny_checkpoint: Path, tmp_path: Path, processes: int) -> None:
    run_together(str(SCRIPT), str(tmp_path / "out.json"), str(tiny_checkpoint), processes=processes)
    together = json.loads((tmp_path / "out.json").read_text())
    alone = json.loads(json.dumps(evaluations(Accelerator(cpu=True), str(tiny_checkpoint))))
    for size in map(str, SIZES):
        assert len(together[size]["best"]) == int(size)
        for ours, its in zip(together[size]["best"], alone[size]["best"], strict=True):
            assert ours == pytest.approx(its, abs=1e-5)
        ours, its = (results[size]["metrics"] for results in (together, alone))
        assert ours["per_class"].keys() == its["per_class"].keys()
        assert {name: value for name, value in ours.items() if name != "per_class"} == pytest.approx(
            {name: value for name, value in its.items() if name != "per_class"}, abs=1e-9
        )
