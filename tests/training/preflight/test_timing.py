"""Settings of speed are compared with those of the recipe, one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer

from detr_ft.training.preflight.timing import _RATE_STEPS, _RATE_WARMUP_STEPS, changes, describe_rates, step_rate
from detr_ft.training.settings import TrainSettings
from detr_ft.training.step import StepError
from detr_ft.training.trainer import DetrTrainer
from detr_ft.workflows import probe as probing


@pytest.mark.parametrize(
    ("train", "on_gpu", "tried"),
    [
        ({}, False, [{"bf16": True}]),
        ({"bf16": True}, False, [{"bf16": False}]),
        ({"fp16": True}, False, []),
        ({"bf16": True}, True, [{"bf16": False}, {"cuda_graphs": False}, {"torch_compile": True}]),
    ],
)
def test_changes_have_a_single_setting(train: dict[str, Any], on_gpu: bool, tried: list[dict[str, bool]]) -> None:
    settings = TrainSettings(output_dir="x", **train)
    assert changes(settings, on_gpu) == tried
    for change in tried:
        TrainSettings(output_dir="x", **(train | change))  # is compatible with the others


def test_a_step_is_timed_on_one_batch(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    batches: list[torch.Tensor] = []
    step = trainer.stepper.step

    def noted(batch: Any, number: int) -> Any:
        batches.append(batch.micro_batches[0].inputs["pixel_values"])
        return step(batch, number)

    trainer.stepper.step = noted  # type: ignore[method-assign]
    assert step_rate(trainer) > 1
    assert len(batches) > 5
    assert all(torch.equal(pixels, batches[0]) for pixels in batches)


def test_each_setting_is_tried_by_a_trainer_that_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        f"model: {{checkpoint: embedded:small}}\ndata: {{source: 'generated:workshop?train=4&validation=2'}}\n"
        f"train: {{output_dir: {tmp_path / 'run'}, per_device_train_batch_size: 2}}\n"
    )
    tried: list[bool] = []

    def rate(trainer: DetrTrainer) -> float:
        tried.append(trainer.settings.bf16)
        return 1.0 + len(tried)

    monkeypatch.setattr(probing, "step_rate", rate)
    monkeypatch.setattr(probing, "probe_trainer", lambda trainer: None)
    outcome = probing.probe(tmp_path / "mine.yaml")
    assert tried == [False, True]
    assert outcome.rates == {"": 2.0, "train.bf16=true": 3.0}


def test_rates_are_described_in_a_line() -> None:
    line = describe_rates(40.0, {"train.bf16=true": 60.0})
    assert line.endswith("40.0 images/s with these settings; train.bf16=true 60.0 (1.50 times)")
    assert describe_rates(40.0, {}).endswith("no other setting applies")


def test_a_failing_step_has_no_rate(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=9)
    gradients, last = trainer.stepper._gradients, []

    def spoiled(attempt: Any) -> Any:
        values = gradients(attempt)
        last.append(attempt.number)
        if len(last) == _RATE_WARMUP_STEPS + _RATE_STEPS:  # the last of all: no step comes after it
            next(trainer.model.parameters()).grad[0] = torch.inf
        return values

    trainer.stepper._gradients = spoiled  # type: ignore[method-assign]
    with pytest.raises(StepError, match="a gradient is NaN or infinite"):
        step_rate(trainer)
