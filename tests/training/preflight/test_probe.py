from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer

from detr_ft.cli.text import describe_probe_outcome
from detr_ft.criterion import BoxL1Loss, CrossEntropyLoss, HungarianMatcher, SetCriterion
from detr_ft.data.export import write_coco
from detr_ft.data.sources.load import load_data
from detr_ft.errors import InputError
from detr_ft.models.freeze import live_norms
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.preflight import memory
from detr_ft.training.preflight.memory import LargestBatch, fit_memory, try_largest
from detr_ft.training.preflight.overfit import Overfit, judge_overfit
from detr_ft.training.preflight.probe import Probe, describe_probe, probe
from detr_ft.training.preflight.timing import PARTS
from detr_ft.training.trainer import TrainingError
from detr_ft.workflows.probe import probe as probe_recipe


def test_a_valid_run_learns_its_batch_and_is_timed_by_part(tiny_checkpoint: Path, tmp_path: Path) -> None:
    criterion = SetCriterion(HungarianMatcher(), [CrossEntropyLoss()])
    settings = {"learning_rate": 5e-3, "max_grad_norm": 10, "per_device_train_batch_size": 1}
    result = probe(make_trainer(tiny_checkpoint, tmp_path / "run", criterion=criterion, **settings))
    assert result.overfit.verdict == "pass", result.overfit
    assert result.overfit.last["loss"] < 0.5 * result.overfit.first["loss"]
    assert tuple(result.parts) == PARTS
    assert all(seconds > 0 for seconds in result.parts.values())
    assert result.seconds_per_step == pytest.approx(sum(result.parts.values()))
    assert result.images_per_second == pytest.approx(1 / result.seconds_per_step)
    assert result.steps == 24
    assert result.largest.mebibytes is not None


def test_a_run_that_cannot_learn_names_the_constant_losses(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", learning_rate=1e-9)
    overfit = probe(trainer).overfit
    assert overfit.verdict == "fail"
    assert "loss_ce, loss_bbox, loss_giou did not fall" in overfit.reason


def test_a_batch_is_judged_by_its_remaining_loss() -> None:
    def judged(*losses: float) -> str:
        return judge_overfit(losses, [{"loss_ce": value} for value in losses])[0]

    assert judged(10.0, 8.0, 4.9) == "pass"
    assert judged(*[10.0] * 119, 7.0) == "slow"
    assert judged(10.0, 9.9) == "slow"  # there was no time for more
    assert judged(*[10.0] * 119, 9.0) == "fail"
    assert judged(10.0, 11.0) == "fail"


def test_the_largest_batch_is_that_of_the_first_epoch_and_changes_nothing(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    live_norms(trainer.model)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    largest = try_largest(trainer, 3)
    split = trainer.loader.examples.split
    sizes = [trainer.stepper.format.resized(*size) for size in zip(split["width"], split["height"], strict=True)]
    assert largest.images == 3
    assert largest.objects == max(len(one["category"]) for one in split["objects"])
    assert largest.width * largest.height >= max(width * height for width, height in sizes)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert all(one.grad is None for one in trainer.model.parameters())


@dataclass(frozen=True)
class Crash(BoxL1Loss):
    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        raise NameError("name 'x' is not defined")


def test_a_term_that_fails_in_the_largest_batch_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", criterion=SetCriterion(HungarianMatcher(), [Crash()]))
    with pytest.raises(TrainingError, match=r"Crash: NameError: .* \(test_probe\.py, line \d+\)"):
        try_largest(trainer, 2)


@pytest.mark.parametrize(("most", "expected"), [(4, 4), (3, 2), (1, 1)])
def test_the_micro_batch_is_halved_until_it_fits(
    tiny_checkpoint: Path, tmp_path: Path, most: int, expected: int, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    fits = memory._gradient_fits

    def short_of_memory(trainer: Any, inputs: Any) -> bool:
        return len(inputs["labels"]) <= most and fits(trainer, inputs)

    monkeypatch.setattr(memory, "_gradient_fits", short_of_memory)
    with caplog.at_level(logging.INFO):
        fit_memory(trainer)
    assert trainer.stepper.max_images == expected
    assert ("out of memory with 4 images" in caplog.text) == (expected < 4)
    monkeypatch.setattr(memory, "_gradient_fits", lambda *_: False)
    with pytest.raises(InputError, match=r"out of memory with one image of \d+x\d+ pixels .*data\.longest_edge"):
        fit_memory(trainer)


def test_a_probe_leaves_nothing_behind(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_coco(load_data("generated:workshop?train=8&validation=2&edge=64"), tmp_path / "data")
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{checkpoint: {tiny_checkpoint}}}\n"
        'data: {source: "coco:data"}\n'
        "train: {output_dir: runs/a, per_device_train_batch_size: 4}\n"
    )
    before = sorted(tmp_path.rglob("*"))
    outcome = probe_recipe(tmp_path / "recipe.yaml")
    assert sorted(tmp_path.rglob("*")) == before
    assert outcome.recipe.train.output_dir == "runs/a"
    lines = describe_probe_outcome(outcome).splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == ["one batch", "speed", "a step's time"]


def test_advice_is_given_where_something_can_be_improved() -> None:
    overfit = Overfit("pass", 9, {"loss": 9.0}, {"loss": 4.0}, "it fell")

    def lines(mebibytes: int | None = 100, uses_cuda_graphs: bool = False, **parts: float) -> str:
        seconds = dict.fromkeys(PARTS, 0.0) | {"forward": 1.0} | parts
        total = sum(seconds.values())
        result = Probe(
            overfit, LargestBatch(8, 800, 1333, 60, mebibytes), 8 / total, total, 7200, seconds, uses_cuda_graphs
        )
        return "\n".join(describe_probe(result, 0))

    assert "advice" not in lines()
    assert "CUDA graphs" not in lines()
    assert "with CUDA graphs" in lines(uses_cuda_graphs=True)
    assert "7200 steps take 2.0 hours" in lines()
    assert "train.dataloader_num_workers=2" in lines(reading=0.5)
    assert "detr-ft[fast]" in lines(matching=0.2)
    assert "per_device_train_batch_size=4 with train.gradient_accumulation_steps=2" in lines(mebibytes=None)
