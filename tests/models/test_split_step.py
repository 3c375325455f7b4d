"""A step of several real processes equals that of one, unlike with the stock loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.processes import run_together

SCRIPT = Path(__file__).parents[1] / "support/distributed_step.py"

Results = dict[str, dict[str, torch.Tensor]]


def shared_among(processes: int, folder: Path) -> Results:
    out = folder / f"{processes}.pt"
    run_together(str(SCRIPT), str(out), processes=processes)
    results: Results = torch.load(out, weights_only=True)
    return results


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return shared_among(1, tmp_path_factory.mktemp("alone"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_any_number_of_processes_is_one(processes: int, alone: Results, tmp_path: Path) -> None:
    shared = shared_among(processes, tmp_path)
    assert shared["ours"].keys() == alone["ours"].keys()
    for name, value in alone["ours"].items():
        if not name.startswith("cardinality"):  # a mean over each process's own images, for the log
            scale = value.abs().max().clamp(min=1e-3).item()
            torch.testing.assert_close(shared["ours"][name], value, rtol=1e-5, atol=1e-5 * scale, msg=name)
    wrong = shared["stock"]["loss_bbox"] / alone["stock"]["loss_bbox"]
    assert abs(wrong.item() - 1) > 0.2  # the box loss of the stock criterion depends on it
