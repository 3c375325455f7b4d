"""A step does not depend on how processes and micro-batches divide its images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.processes import run_together
from support.single_step import first_step, make_trainer

from detr_ft.structures import StepTotals
from detr_ft.training import step
from detr_ft.training.step_totals import seed_step

SCRIPT = Path(__file__).parents[1] / "support/single_step.py"
Values = dict[str, torch.Tensor]


def distance(first: Values, second: Values) -> float:
    """The largest difference of any gradient, relative to the largest of its tensor.

    The gradient of the bias of keys is rounding only, since softmax cancels it.
    """
    assert first.keys() == second.keys()
    return max(
        float((first[name] - second[name]).abs().max() / first[name].abs().max().clamp(min=1e-8))
        for name in first
        if first[name].ndim
    )


def assert_same_step(first: Values, second: Values) -> None:
    """The same gradients, and the same terms as far as the log writes them out."""
    assert distance(first, second) < 1e-6
    assert all(abs(first[name] - second[name]) < 1.1e-5 for name in first if first[name].ndim == 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Values]:
    """The step of all images at once, of eight, five and three."""
    folder = tmp_path_factory.mktemp("whole")
    return {number: first_step(make_trainer(folder / str(number), number, 8, 8)) for number in (3, 5, 8)}


@pytest.mark.parametrize("number", [5, 8])
@pytest.mark.parametrize("micro", [4, 2, 1])
def test_accumulated_batches_equal_one_batch(whole: dict[int, Values], number: int, micro: int, tmp_path: Path) -> None:
    shared = first_step(make_trainer(tmp_path / "run", number, 8, micro))
    assert_same_step(whole[number], shared)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "processes", "micro"), [(8, 2, 4), (8, 4, 2), (3, 2, 1), (3, 4, 2)])
def test_any_number_of_processes_equals_one(
    whole: dict[int, Values], number: int, processes: int, micro: int, tmp_path: Path
) -> None:
    numbers = map(str, (number, 8 // processes, micro))
    run_together(str(SCRIPT), str(tmp_path / "out.pt"), *numbers, processes=processes)
    assert_same_step(whole[number], torch.load(tmp_path / "out.pt", weights_only=True))


def test_without_step_totals_the_gradient_differs(
    whole: dict[int, Values], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path / "run", 8, 8, 2)
    monkeypatch.setattr(step, "step_totals", lambda *_: None)
    assert distance(whole[8], first_step(trainer)) > 0.1


def test_totals_count_all_micro_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path / "run", 5, 8, 2)
    totals: list[StepTotals] = []
    counted = step.step_totals

    def remember(*arguments: Any) -> StepTotals:
        totals.append(counted(*arguments))
        return totals[-1]

    monkeypatch.setattr(step, "step_totals", remember)
    trainer.train()
    objects = trainer.loader.examples.split["objects"]
    classes = torch.tensor([label for one in objects for label in one["category"]])
    assert [one.images for one in totals] == [5]
    assert torch.equal(totals[0].labels.cpu(), torch.bincount(classes, minlength=5).float())


def test_random_numbers_depend_on_seed_step_and_process() -> None:
    def draw(*of: int) -> torch.Tensor:
        seed_step(*of)
        return torch.rand(3)

    assert torch.equal(draw(0, 7, 1), draw(0, 7, 1))
    others = [draw(0, 7, 1), draw(1, 7, 1), draw(0, 8, 1), draw(0, 7, 0)]
    assert len({tuple(one.tolist()) for one in others}) == 4
