from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer

from detr_ft.cli.text import describe_probe_outcome
from detr_ft.criterion import CrossEntropyLoss, HungarianMatcher, SetCriterion
from detr_ft.data import load_data, write_coco
from detr_ft.errors import InputError
from detr_ft.models.freeze import live_norms
from detr_ft.training.preflight import probe as probing
from detr_ft.training.preflight.memory import Worst, fit_memory, try_worst
from detr_ft.training.preflight.overfit import Overfit, judge_overfit
from detr_ft.training.preflight.probe import PARTS, Probe, probe
from detr_ft.training.preflight.summary import describe_probe
from detr_ft.workflows.probe import probe as probe_recipe


def test_a_sound_run_learns_its_batch_and_its_time_is_told_by_part(tiny_checkpoint: Path, tmp_path: Path) -> None:
    criterion = SetCriterion(HungarianMatcher(), [CrossEntropyLoss()])
    settings = {"learning_rate": 5e-3, "max_grad_norm": 10, "per_device_train_batch_size": 1}
    found = probe(make_trainer(tiny_checkpoint, tmp_path / "run", criterion=criterion, **settings))
    assert found.overfit.verdict == "pass", found.overfit
    assert found.overfit.last["loss"] < 0.5 * found.overfit.first["loss"]
    assert tuple(found.parts) == PARTS
    assert all(seconds > 0 for seconds in found.parts.values())
    assert found.seconds_per_step == pytest.approx(sum(found.parts.values()))
    assert found.images_per_second == pytest.approx(1 / found.seconds_per_step)
    assert found.steps == 24
    assert found.worst.mebibytes is not None


def test_a_run_that_cannot_learn_fails_with_what_did_not_fall(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", learning_rate=1e-9)
    overfit = probe(trainer).overfit
    assert overfit.verdict == "fail"
    assert "loss_ce, loss_bbox, loss_giou did not fall" in overfit.reason


def test_a_batch_is_judged_by_what_is_left_of_its_loss() -> None:
    def judged(*losses: float) -> str:
        return judge_overfit(losses, [{"loss_ce": value} for value in losses])[0]

    assert judged(10.0, 8.0, 4.9) == "pass"
    assert judged(*[10.0] * 119, 7.0) == "slow"
    assert judged(10.0, 9.9) == "slow"  # there was no time for more
    assert judged(*[10.0] * 119, 9.0) == "fail"
    assert judged(10.0, 11.0) == "fail"


def test_the_worst_batch_is_that_of_the_plan_and_changes_nothing(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    live_norms(trainer.model)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    worst = try_worst(trainer, 3)
    split = trainer.examples.split
    sizes = [trainer.format.resized(*size) for size in zip(split["width"], split["height"], strict=True)]
    assert worst.images == 3
    assert worst.objects == max(len(one["category"]) for one in split["objects"])
    assert worst.width * worst.height >= max(width * height for width, height in sizes)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert all(one.grad is None for one in trainer.model.parameters())
    assert trainer.attached.step is None


@pytest.mark.parametrize(("most", "expected"), [(4, 4), (3, 2), (1, 1)])
def test_before_the_first_step_so_many_go_at_once_as_fit(
    tiny_checkpoint: Path, tmp_path: Path, most: int, expected: int, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    gradient = probing._gradient

    def short_of_memory(trainer: Any, inputs: Any) -> bool:
        return len(inputs["labels"]) <= most and gradient(trainer, inputs)

    monkeypatch.setattr(probing, "_gradient", short_of_memory)
    with caplog.at_level(logging.INFO):
        fit_memory(trainer)
    assert trainer.stepper.largest == expected
    assert ("through the model by" in caplog.text) == (expected < 4)
    monkeypatch.setattr(probing, "_gradient", lambda *_: False)
    with pytest.raises(InputError, match=r"one image of \d+x\d+ pixels with \d+ objects is more than memory holds"):
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


def test_what_to_change_is_said_where_there_is_something() -> None:
    overfit = Overfit("pass", 9, {"loss": 9.0}, {"loss": 4.0}, "it fell")

    def lines(worst: int | None = 100, replayed: bool = False, **parts: float) -> str:
        seconds = dict.fromkeys(PARTS, 0.0) | {"forward": 1.0} | parts
        total = sum(seconds.values())
        found = Probe(overfit, Worst(8, 800, 1333, 60, worst), 8 / total, total, 7200, seconds, replayed)
        return "\n".join(describe_probe(found, 0))

    assert "advice" not in lines()
    assert "CUDA graphs" not in lines()
    assert "replayed as CUDA graphs, steps are as fast as the last line says" in lines(replayed=True)
    assert "7200 steps will take 2.0 hours" in lines()
    assert "train.dataloader_num_workers=2" in lines(reading=0.5)
    assert "detr-ft[fast]" in lines(matching=0.2)
    assert "per_device_train_batch_size=4 with train.gradient_accumulation_steps=2" in lines(worst=None)
