"""A failed step is not applied, and its capsule shows the origin of the bad value."""

from __future__ import annotations

import json
import logging
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import make_trainer
from torch import Tensor

from detr_ft.criterion import BoxL1Cost, BoxL1Loss, CrossEntropyLoss, HungarianMatcher, SetCriterion, detr_criterion
from detr_ft.errors import InputError
from detr_ft.structures import Matches, Predictions, StepTotals, Targets
from detr_ft.training import step
from detr_ft.training.failures import capsule as capsule_module
from detr_ft.training.failures.replay import Capsule, replay
from detr_ft.training.stopping import diverged
from detr_ft.training.trainer import DetrTrainer, TrainingError


@dataclass(frozen=True)
class Infinite(BoxL1Loss):
    """A loss whose value is finite and whose gradient is not."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return super().__call__(predictions, targets, matches) + (predictions.boxes.sum((1, 2, 3)) * 0).sqrt()


@dataclass(frozen=True)
class NotANumber(BoxL1Loss):
    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return super().__call__(predictions, targets, matches) * float("nan")


@dataclass(frozen=True)
class Crash(BoxL1Loss):
    name: ClassVar[str] = "loss_crash"

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        raise IndexError("index 9 is out of bounds")


@dataclass(frozen=True)
class ConstantNaN(BoxL1Loss):
    """A loss whose value is NaN and whose gradient is finite."""

    def __call__(self, predictions: Predictions, targets: Targets, matches: Matches) -> Tensor:
        return super().__call__(predictions, targets, matches) * 0 + torch.log(torch.tensor(-1.0))


@dataclass(frozen=True)
class LoggedNaN(ConstantNaN):
    """A loss that is logged only."""

    weight: float = 0.0
    name: ClassVar[str] = "loss_logged"


@dataclass(frozen=True)
class CrashingCost(BoxL1Cost):
    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return torch.cat([super().__call__(predictions, targets), torch.zeros(1)])


@dataclass(frozen=True)
class BadCost(BoxL1Cost):
    def __call__(self, predictions: Predictions, targets: Targets) -> Tensor:
        return super().__call__(predictions, targets) / 0


def with_loss(loss: Any) -> SetCriterion:
    return SetCriterion(HungarianMatcher(), [CrossEntropyLoss(), loss])


def nan_pixels(trainer: DetrTrainer) -> None:
    normalize = trainer.stepper.format.normalize
    object.__setattr__(
        trainer.stepper.format,
        "normalize",
        lambda batch: normalize(batch) | {"pixel_values": normalize(batch)["pixel_values"] / 0},
    )


def infinite_box(trainer: DetrTrainer) -> None:
    at = trainer.loader.examples.at

    def spoiled(epoch: int, index: int) -> dict[str, Any]:
        example = at(epoch, index)
        example["labels"]["boxes"][:1] = float("inf")
        return example

    trainer.loader.examples.at = spoiled  # type: ignore[method-assign]


def huge_weight(trainer: DetrTrainer) -> None:
    with torch.no_grad():
        trainer.model.model.decoder.layers[1].mlp.fc1.weight.fill_(1e30)


def nothing(trainer: DetrTrainer) -> None:
    """Leave the trainer as it is."""


@pytest.mark.parametrize(
    ("criterion", "spoil", "message", "origin", "words"),
    [
        (with_loss(Infinite()), nothing, r"a gradient is NaN.*the gradient of the loss Infinite", "gradient", "Infinite"),
        (with_loss(NotANumber()), nothing, r"\(loss nan\).*the loss NotANumber", "loss", "NotANumber"),
        (with_loss(ConstantNaN()), nothing, r"loss and 3 more terms are NaN or infinite \(loss nan\).*the loss ConstantNaN", "loss", "ConstantNaN"),
        (with_loss(LoggedNaN()), nothing, r"loss_logged and 2 more terms are NaN.* \(loss \d.*the loss LoggedNaN", "loss", "LoggedNaN"),
        (
            with_loss(Crash()), nothing, r"Crash: IndexError: index 9 is out of bounds \(test_capsule\.py, line \d+\)",
            "loss", r"^Crash: IndexError: index 9.*\(test_capsule\.py, line \d+\)",
        ),
        (
            SetCriterion(HungarianMatcher([CrashingCost()]), [BoxL1Loss()]), nothing,
            r"CrashingCost: RuntimeError: .*\(test_capsule\.py, line \d+\)", "loss", r"^CrashingCost: RuntimeError: ",
        ),
        (SetCriterion(HungarianMatcher([BadCost()]), [BoxL1Loss()]), nothing, "BadCost", "cost", "BadCost"),
        (detr_criterion(), infinite_box, "target", "target", "inf"),
        (detr_criterion(), huge_weight, "NaN or infinite", "prediction", r"the output of model\.decoder\.layers\.1\."),
    ],
    ids=["gradient", "loss", "constant", "logged", "crash", "crashing cost", "cost", "target", "prediction"],
)  # fmt: skip
def test_a_bad_value_is_not_applied_and_the_capsule_names_its_origin(
    tiny_checkpoint: Path, tmp_path: Path, criterion: SetCriterion, spoil: Any, message: str, origin: str, words: str
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", criterion=criterion, logging_steps=1)
    spoil(trainer)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(TrainingError, match=rf"^step 1, images \d+, \d+, \d+, \d+: (.|\n)*{message}") as caught:
        trainer.train()
    folder = tmp_path / "run/failures/step-1"
    assert f"detr-ft replay {folder}" in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert "loss" not in (tmp_path / "run/log.jsonl").read_text()
    assert all(
        torch.equal(value, before[name].cpu()) for name, value in load_file(folder / "model.safetensors").items()
    )
    capsule = Capsule(folder)
    assert f"images {', '.join(str(one['image_id']) for one in capsule.images)}:" in str(caught.value)
    verdict = replay(capsule, criterion)
    assert verdict is not None
    assert verdict.origin == origin
    assert re.search(words, verdict.words), verdict.words


def test_pixels_that_are_not_finite_are_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    nan_pixels(trainer)
    with pytest.raises(TrainingError, match="step 1, images"):
        trainer.train()
    capsule = Capsule(tmp_path / "run/failures/step-1")
    capsule.processor.image_std = [0.0, 0.229, 0.225]  # what makes them so again
    verdict = replay(capsule, detr_criterion())
    assert verdict is not None
    assert (verdict.origin, "image 0 of the batch" in verdict.words) == ("pixels", True)


def test_a_step_that_succeeds_has_no_verdict(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError):
        make_trainer(tiny_checkpoint, tmp_path / "run", criterion=with_loss(Infinite())).train()
    assert replay(Capsule(tmp_path / "run/failures/step-1"), detr_criterion()) is None


def test_a_capsule_has_the_totals_of_its_step(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", criterion=with_loss(NotANumber()))
    # An object on one of four processes counts a quarter, and not one.
    monkeypatch.setattr(step, "step_totals", lambda *_: StepTotals(2.0, torch.tensor([0.25, 0, 0, 0, 0]), processes=4))
    with pytest.raises(TrainingError):
        trainer.train()
    capsule = Capsule(tmp_path / "run/failures/step-1")
    assert capsule.totals is not None
    assert (capsule.totals.images, capsule.totals.processes, capsule.totals.num_boxes) == (2.0, 4, 0.25)
    del capsule.tensors["step"]["processes"]  # written by an earlier version
    assert capsule.totals.processes == 1


def test_another_folder_is_no_capsule(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no failure capsule"):
        Capsule(tmp_path / "nowhere")
    make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=1).train()
    with pytest.raises(InputError, match="step-3: no failure capsule"):
        Capsule(tmp_path / "run/checkpoints/step-3")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    run = tmp_path_factory.mktemp("capsule") / "run"
    with pytest.raises(TrainingError):
        make_trainer(tiny_checkpoint, run, criterion=with_loss(NotANumber())).train()
    return run / "failures/step-1"


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "step-1"))


@pytest.mark.parametrize("name", ["state.json", "training.pt", "model.safetensors", "config.json"])
def test_a_damaged_file_of_a_capsule_is_named(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"step-1: .*{re.escape(name)} changed after it was written"):
        Capsule(folder)
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"step-1: .*{re.escape(name)} is missing"):
        Capsule(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": None}, "images must be a list, got NoneType"),
        ({"images": [1]}, "an entry of images is incomplete"),
        ({"step": "1"}, "step must be a int"),
        ({"facts": [], "criterion": None}, "facts must be a dict.*, got list|criterion must be a dict, got NoneType"),
        ({"live_norms": 3, "frozen": {}}, "live_norms must be a bool"),
    ],
)
def test_values_of_another_kind_in_a_capsule_are_named(folder: Path, change: dict[str, Any], words: str) -> None:
    (folder / "complete.json").unlink()  # as in an earlier version
    assert Capsule(folder).number == 1
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | change))
    with pytest.raises(InputError, match=rf"step-1: .*state\.json: .*{words}"):
        Capsule(folder)


def test_the_weights_that_are_copied_into_a_capsule_are_those_of_its_step(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capsule_module, "_MAX_WEIGHT_BYTES", 1)
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", criterion=with_loss(NotANumber()))
    trainer.checkpoints.save(1, trainer.state.files({}, 0.0))
    with pytest.raises(TrainingError):
        trainer.train()
    folder = tmp_path / "run/failures/step-1"
    with pytest.raises(InputError, match=r"has no weights\. Copy those of step 0"):
        Capsule(folder)
    shutil.copy(tiny_checkpoint / "model.safetensors", folder)
    with pytest.raises(InputError, match=r"model\.safetensors: not the weights of the failed step"):
        Capsule(folder)
    shutil.copy(tmp_path / "run/checkpoints/step-1/model.safetensors", folder)
    assert replay(Capsule(folder), with_loss(NotANumber())) is not None


@pytest.mark.parametrize(("most", "expected"), [(3, 2), (1, 1)])
def test_out_of_memory_the_step_is_the_same_in_smaller_parts(
    tmp_path: Path, most: int, expected: int, caplog: pytest.LogCaptureFixture
) -> None:
    from support.single_step import first_step
    from support.single_step import make_trainer as make_exact

    whole = first_step(make_exact(tmp_path / "whole", 8, 8, 8))
    trainer = make_exact(tmp_path / "short", 8, 8, 8)
    wrapped = trainer.stepper.forward_backward.wrapped

    def short_of_memory(**inputs: Any) -> Any:
        outputs = wrapped(**inputs)
        if len(inputs["pixel_values"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return outputs

    trainer.stepper.forward_backward.wrapped = short_of_memory
    with caplog.at_level(logging.WARNING):
        parts = first_step(trainer)
    assert trainer.stepper.max_images == expected
    assert f"images at once; from here on {expected}," in caplog.text
    for name, value in whole.items():
        scale = value.abs().max().clamp(min=1e-8).item()
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=max(1e-6 * scale, 1.1e-5 * (value.ndim == 0)))


def test_a_single_image_out_of_memory_has_a_remedy(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")

    def short_of_memory(**inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore words")

    trainer.stepper.forward_backward.wrapped = short_of_memory
    with pytest.raises(
        TrainingError, match=r"out of memory: CUDA out of memory\. Tried to allocate 2\.00 GiB\. .*data\.longest_edge"
    ):
        trainer.train()
    assert (tmp_path / "run/failures/step-1").is_dir()


def test_a_diverging_loss_ends_the_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=8, logging_steps=1)
    step = trainer.stepper.step

    def spoiled(batch: Any, number: int) -> dict[str, Tensor]:
        values = step(batch, number)
        return values if number < 14 else {name: 1e4 * value for name, value in values.items()}

    trainer.stepper.step = spoiled  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match=r"the loss has diverged.*weights are those after this step"):
        trainer.train()
    assert trainer.progress.step == 16


def test_divergence_differs_from_noise() -> None:
    falling = [30 * 0.9**step for step in range(40)]
    assert not diverged(falling)
    assert not diverged([*falling, 1e-3, 5.0, 4.0, 6.0])
    assert not diverged([1e-3, 1e-3, *falling])
    assert not diverged([*falling, 1e6, 1e6])
    assert diverged([*falling, 1e6, 1e6, 1e6])
    assert not diverged([1.0, 1.0, 1e6, 1e6, 1e6])
