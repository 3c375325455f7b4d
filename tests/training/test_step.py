"""A step synchronizes the device once, and a failed one is not applied, whenever the failure is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.optimizer import AcceleratedOptimizer
from support.small_run import make_trainer
from support.synchronizations import count_synchronizations

from detr_ft.criterion import BoxL1Loss, CrossEntropyLoss, HungarianMatcher, SetCriterion
from detr_ft.errors import InputError
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.failures.replay import Capsule
from detr_ft.training.step import StepError
from detr_ft.training.trainer import DetrTrainer, TrainingError


def spoil_the_gradient(trainer: DetrTrainer, wanted: int) -> Callable[[], dict[str, Any]]:
    """Make a gradient infinite in that step; return a function that returns the state before it."""
    before: dict[str, Any] = {}
    gradients = trainer.stepper._gradients

    def spoiled(attempt: Any) -> Any:
        values = gradients(attempt)
        if attempt.number == wanted:
            before.update(state_of(trainer))
            next(trainer.model.parameters()).grad[0] = torch.inf
        return values

    trainer.stepper._gradients = spoiled  # type: ignore[method-assign]
    return lambda: before


def state_of(trainer: DetrTrainer) -> dict[str, Any]:
    optimizer = trainer.stepper.optimizer.optimizer
    moments = {
        f"{number}.{name}": value.clone()
        for number, one in enumerate(optimizer.state.values())
        for name, value in one.items()
    }
    return {name: value.clone() for name, value in trainer.model.state_dict().items()} | moments


def test_a_step_synchronizes_in_the_matching_only(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", ema_decay=0.9)
    steps = trainer.loader.steps()
    trainer.stepper.start_epoch(0)
    trainer.stepper.step(next(steps), 1)
    batch = next(steps)
    with count_synchronizations(monkeypatch) as operations:
        trainer.stepper.step(batch, 2)
    # The other is the check of the previous step: from a GPU it has arrived by then.
    assert operations == ["cpu", "item", "_local_scalar_dense"]


def test_a_bad_gradient_is_reported_in_the_next_step_and_not_applied(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=4, logging_steps=100)
    before = spoil_the_gradient(trainer, 5)
    with pytest.raises(TrainingError, match=r"^step 5, images .*a gradient is NaN or infinite .* nothing of this step"):
        trainer.train()
    assert trainer.stepper.attempt.number == 6
    now = state_of(trainer)
    assert before().keys() == now.keys()
    assert not [name for name, value in before().items() if not torch.equal(value, now[name])]
    assert (tmp_path / "run/failures/step-5").is_dir()
    assert not list((tmp_path / "run/checkpoints").glob("step-*"))


@pytest.mark.parametrize(
    "settings", [{}, {"logging_steps": 6}, {"save_steps": 6}, {"eval_epochs": 2}, {"max_minutes": 9}]
)
def test_a_failed_step_writes_no_checkpoint_or_log(
    tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    quiet = {"logging_steps": 100, "eval_epochs": 0, "num_train_epochs": 2}
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **(quiet | settings))
    spoil_the_gradient(trainer, trainer.loader.total_steps)
    with pytest.raises(TrainingError, match=r"^step 6, images"):
        trainer.train()
    assert '"step": 6' not in (tmp_path / "run/log.jsonl").read_text()
    assert not (tmp_path / "run/checkpoints/step-6").exists()
    assert not (tmp_path / "run/model.safetensors").exists()


@pytest.mark.parametrize("eval_epochs", [0, 1])
def test_a_bad_gradient_is_reported_before_an_epoch_ends(
    tiny_checkpoint: Path, tmp_path: Path, eval_epochs: int
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", logging_steps=100, eval_epochs=eval_epochs)
    spoil_the_gradient(trainer, trainer.loader.steps_per_epoch)
    with pytest.raises(TrainingError, match=r"^step 3, images"):
        trainer.train()
    assert trainer.stepper.attempt.number == 3
    assert "map" not in (tmp_path / "run/log.jsonl").read_text()


@dataclass(frozen=True)
class NotOfZeros(BoxL1Loss):
    """A loss that is no number where an object is of class 0."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> torch.Tensor:
        value = super().__call__(predictions, targets, matches)
        return value * torch.where((targets.labels == 0).any(), torch.nan, 1.0)


def test_message_and_capsule_are_of_the_failed_step(tiny_checkpoint: Path, tmp_path: Path) -> None:
    criterion = SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), NotOfZeros()])
    trainer = make_trainer(
        tiny_checkpoint, tmp_path / "run", criterion=criterion, num_train_epochs=4, logging_steps=100
    )
    made, marked = trainer.loader.examples.at, []

    def at(epoch: int, index: int) -> dict[str, Any]:
        example = made(epoch, index)
        fifth = epoch == 1 and index in trainer.loader.batches.of_epoch(epoch)[1]
        marked.extend([index] if fifth else [])
        example["labels"]["class_labels"][:] = 0 if fifth else 1
        return example

    trainer.loader.examples.at = at  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"^step 5, images .*\(loss nan\)\. .*the loss NotOfZeros"):
        trainer.train()
    assert trainer.stepper.attempt.number == 6
    capsule = Capsule(tmp_path / "run/failures/step-5")
    assert sorted(row for one in capsule.batches for row in one["rows"]) == sorted(marked)
    labels = capsule.tensors["step"]["labels"]
    assert labels[0] > 0
    assert labels[1] == 0
    assert (capsule.state["epoch"], capsule.state["place"]) == (1, 1)


def test_a_step_skipped_by_the_scaler_leaves_weights_and_average(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=4, ema_decay=0.5)
    trainer.accelerator.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    trainer.stepper.optimizer = AcceleratedOptimizer(trainer.stepper.optimizer.optimizer, scaler=scaler)
    average = trainer.stepper.ema
    assert average is not None
    step, averages, weights = trainer.stepper.step, [], []

    def noted(batch: Any, number: int) -> Any:
        values = step(batch, number)
        averages.append({name: value.clone() for name, value in average.state_dict().items()})
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        return values

    trainer.stepper.step = noted  # type: ignore[method-assign]
    before = spoil_the_gradient(trainer, 3)
    trainer.train()
    assert scaler.get_scale() == 4.0
    assert len(averages) == trainer.loader.total_steps
    assert same(averages[1], averages[2])
    assert not same(averages[2], averages[3])
    assert same(weights[1], weights[2])
    assert same(weights[1], before())
    assert not same(weights[2], weights[3])


def test_a_failed_step_is_reported_before_an_unreadable_image(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=4, logging_steps=100)
    spoil_the_gradient(trainer, 4)
    made = trainer.loader.examples.at

    def at(epoch: int, index: int) -> dict[str, Any]:
        if index in trainer.loader.batches.of_epoch(1)[1] and epoch == 1:
            raise InputError("x.jpg: can't be read")
        return made(epoch, index)

    trainer.loader.examples.at = at  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"^step 4, images"):
        trainer.train()
    assert (tmp_path / "run/failures/step-4").is_dir()


def test_a_run_that_failed_early_restarts_and_keeps_the_capsule(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    spoil_the_gradient(trainer, 2)
    with pytest.raises(TrainingError):
        trainer.train()
    with pytest.raises(InputError, match="run is not empty"):
        make_trainer(tiny_checkpoint, tmp_path / "run")
    trainer.run.clear_beginnings()
    make_trainer(tiny_checkpoint, tmp_path / "run").train()
    assert (tmp_path / "run/model.safetensors").is_file()
    assert Capsule(tmp_path / "run/failures/step-2").number == 2


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_first_of_two_failed_steps_is_reported(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=4, logging_steps=100)
    spoil_the_gradient(trainer, 2)
    micro_step = trainer.stepper._micro_step

    def fails(attempt: Any, micro: Any, last: bool) -> Any:
        if attempt.number == 3:
            raise StepError("a term fails", attempt)
        return micro_step(attempt, micro, last)

    trainer.stepper._micro_step = fails  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"^step 2, images"):
        trainer.train()
