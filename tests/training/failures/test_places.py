"""Wherever a term raises, and whatever, the error names step, images, file and line, and there is a capsule."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer
from torch import Tensor

from detr_ft.criterion import BoxL1Cost, BoxL1Loss, HungarianMatcher, SetCriterion
from detr_ft.structures import Matches, Predictions, Targets
from detr_ft.training.failures import capsule
from detr_ft.training.failures.replay import Capsule, replay
from detr_ft.training.trainer import DetrTrainer, TrainingError

EXCEPTIONS: dict[str, BaseException] = {
    "value": ValueError("wrong"), "exit": SystemExit(0), "ctrl-c": KeyboardInterrupt(), "generator": GeneratorExit(),
    "stop": StopIteration(), "memory": torch.OutOfMemoryError("out of memory"),
}  # fmt: skip


class RaisingGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, what: str) -> Tensor:
        ctx.what = what
        return value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        raise EXCEPTIONS[ctx.what]


@dataclass(frozen=True)
class RaisingCost(BoxL1Cost):
    place: str = ""
    what: str = ""

    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        if self.place == "cost" or (self.place == "sample" and predictions.logits.is_inference()):
            raise EXCEPTIONS[self.what]
        return super().__call__(predictions, targets)


@dataclass(frozen=True)
class RaisingLoss(BoxL1Loss):
    place: str = ""
    what: str = ""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        value = super().__call__(predictions, targets, matches)
        again = (
            predictions.logits.is_leaf or "Clone" in type(predictions.logits.grad_fn).__name__
        )  # not in the forward pass
        if self.place == "loss" or (self.place in ("statistics", "search") and again):
            raise EXCEPTIONS[self.what]
        if self.place == "backward":
            return RaisingGradient.apply(value, self.what)
        if self.place == "hook":
            value = value.clone()
            value.register_hook(self._raise)
        return value * torch.nan if self.place == "search" else value

    def _raise(self, gradient: Tensor) -> None:
        raise EXCEPTIONS[self.what]


def raising_trainer(checkpoint: Path, folder: Path, place: str, what: str) -> DetrTrainer:
    criterion = SetCriterion(
        HungarianMatcher([RaisingCost(place=place, what=what)]), [RaisingLoss(place=place, what=what)]
    )
    trainer = make_trainer(checkpoint, folder, criterion=criterion, num_train_epochs=1, ema_decay=0.5)

    def fail(*arguments: object) -> None:
        raise EXCEPTIONS[what]

    if place == "optimizer":
        trainer.stepper.optimizer.optimizer.register_step_pre_hook(fail)
    if place == "average":
        trainer.stepper.ema.update = fail  # type: ignore[method-assign, union-attr, assignment]
    return trainer


@pytest.mark.parametrize(
    ("place", "what", "step", "applied", "origin"),
    [
        ("cost", "exit", 1, "nothing", "loss"),
        ("loss", "value", 1, "nothing", "loss"),
        ("loss", "ctrl-c", 1, "nothing", "loss"),
        ("loss", "stop", 1, "nothing", "loss"),
        ("backward", "value", 1, "nothing", "gradient"),
        ("backward", "exit", 1, "nothing", "gradient"),
        ("hook", "generator", 1, "nothing", "gradient"),
        ("search", "value", 1, "nothing", "loss"),
        ("optimizer", "value", 1, "a part of this step", None),
        ("average", "exit", 1, "a part of this step", None),
        ("statistics", "value", 1, "weights are those after", None),
        ("statistics", "memory", 1, "weights are those after", None),
        ("statistics", "ctrl-c", 1, "weights are those after", None),
        ("sample", "exit", 3, "weights are those after", None),
        ("sample", "value", 3, "weights are those after", None),
    ],
)
def test_an_exception_names_step_images_and_line_and_has_a_capsule(
    tiny_checkpoint: Path, tmp_path: Path, place: str, what: str, step: int, applied: str, origin: str | None
) -> None:
    trainer = raising_trainer(tiny_checkpoint, tmp_path / "run", place, what)
    with pytest.raises(TrainingError) as caught:
        trainer.train()
    message, folder = str(caught.value), tmp_path / f"run/failures/step-{step}"
    kind = type(EXCEPTIONS[what]).__name__
    assert re.match(rf"step {step}, images \d+, \d+.*: (.|\n)*{kind}: .*\(test_places\.py, line \d+\); ", message), (
        message
    )
    assert applied in message.partition(kind)[2]
    assert f"detr-ft replay {folder}" in message
    read = Capsule(folder)
    assert f"images {', '.join(str(one['image_id']) for one in read.images)}: " in message
    assert len(read.images) == sum(len(batch["rows"]) for batch in read.batches) > 0
    if what != "ctrl-c":  # outside a run it is a real one
        verdict = replay(read, trainer.criterion)
        assert (verdict and verdict.origin) == origin


@dataclass(frozen=True)
class Unreadable(BoxL1Loss):
    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        raise ValueError("wrong")


def test_a_capsule_that_cannot_be_made_does_not_hide_the_failure(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(capsule, "files_of", fail)
    criterion = SetCriterion(HungarianMatcher(), [Unreadable()])
    with pytest.raises(
        TrainingError, match=r"^step 1, images .*ValueError: wrong.* could not be written: RuntimeError: CUDA"
    ):
        make_trainer(tiny_checkpoint, tmp_path / "run", criterion=criterion).train()
