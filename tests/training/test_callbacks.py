"""Callbacks get the documented arguments, change nothing, and are named if they fail."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer, stop_after, unprepared_trainer
from torch import Tensor, nn

from detr_ft.errors import InputError, Interrupted
from detr_ft.structures import Detections
from detr_ft.training.callbacks import Callback, CallbackError, TrainResult
from detr_ft.workflows.train import train


class Recorder(Callback):
    """Records its arguments, draws random numbers and runs the model."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, dict[str, float], Mapping[str, Any] | None, bool]] = []
        self.evaluations: list[tuple[int, Mapping[str, Any], int]] = []
        self.saves: list[tuple[str, int, bool]] = []
        self.results: list[TrainResult] = []
        self.weights: list[Tensor] = []

    def on_step(self, model: nn.Module, step: int, terms: Mapping[str, Tensor], row: Mapping[str, Any] | None) -> None:
        assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
        self.steps.append((step, {name: value.item() for name, value in terms.items()}, row, model.training))
        random.random()
        torch.rand(3)
        model.eval()
        with torch.no_grad():
            model(pixel_values=torch.rand(1, 3, 64, 64))

    def on_evaluate(
        self, model: nn.Module, step: int, metrics: Mapping[str, Any], detections: Sequence[Detections]
    ) -> None:
        self.evaluations.append((step, metrics, len(detections)))
        self.weights.append(next(model.parameters()).detach().clone())

    def on_save(self, folder: Path, step: int) -> None:
        self.saves.append((folder.name, step, (folder / "model.safetensors").is_file()))

    def on_end(self, result: TrainResult) -> None:
        self.results.append(result)


def test_callbacks_get_steps_evaluations_saves_and_the_result(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", callbacks=[recorder], ema_decay=0.5, logging_steps=3)
    result = trainer.train()
    assert [step for step, *_ in recorder.steps] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _, row, _ in recorder.steps if row is not None] == [1, 3, 6]
    assert all(training for *_, training in recorder.steps)
    _, terms, row, _ = recorder.steps[0]
    assert row is not None
    assert {name: row[name] for name in terms} == pytest.approx(terms, abs=1e-5)
    assert {"loss", "loss_ce", "loss_bbox_0"} <= set(terms)
    assert [(step, images) for step, _, images in recorder.evaluations] == [(3, 6), (6, 6)]
    assert recorder.evaluations[-1][1] == result.metrics
    assert torch.equal(recorder.weights[-1], trainer.stepper.ema.shadow[0])  # type: ignore[union-attr]
    assert all(complete for *_, complete in recorder.saves)
    assert [(name, step) for name, step, _ in recorder.saves] == [
        ("best", 3), ("step-6", 6), ("raw", 6), ("run", 6)
    ]  # fmt: skip
    assert recorder.results == [result]


def test_callbacks_do_not_change_the_run(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = make_trainer(tiny_checkpoint, tmp_path / "plain")
    observed = make_trainer(tiny_checkpoint, tmp_path / "observed", callbacks=[Recorder(), Recorder()])
    assert plain.train().metrics == observed.train().metrics
    weights = plain.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in observed.model.state_dict().items())


class Failing(Callback):
    """Fails in one of its methods."""

    def __init__(self, method: str) -> None:
        def fail(*arguments: object) -> None:
            raise ZeroDivisionError("by zero")

        setattr(self, method, fail)


@pytest.mark.parametrize("method", ["on_step", "on_evaluate", "on_save", "on_end"])
def test_a_failing_callback_ends_the_run_and_is_named(tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    recorder = Recorder()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", callbacks=[Failing(method), recorder])
    with pytest.raises(CallbackError, match=rf"Failing\.{method}: ZeroDivisionError: .*test_callbacks\.py") as caught:
        trainer.train()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert recorder.results == []


def test_an_interrupted_run_saves_and_has_no_end(tiny_checkpoint: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", callbacks=[recorder])
    stop_after(trainer, 2)
    with pytest.raises(Interrupted):
        trainer.train()
    assert recorder.saves == [("step-2", 2, True)]
    assert recorder.results == []


def test_a_trainer_has_no_effect_before_it_trains(tiny_checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    random.seed(5)
    first = unprepared_trainer(tiny_checkpoint, tmp_path / "run")
    weights, modules = first.model.state_dict(), [type(module) for module in first.model.modules()]
    loss, before, drawn = first.model.loss_function, torch.get_rng_state(), random.getstate()
    arguments = {
        "model": first.model, "criterion": first.criterion, "train_dataset": first.train_dataset,
        "eval_dataset": first.eval_dataset, "settings": first.settings, "processor": first.processor,
    }  # fmt: skip
    trainer = type(first)(**arguments)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == drawn
    assert not (tmp_path / "run").exists()
    assert trainer.model.loss_function is loss
    assert [type(module) for module in trainer.model.modules()] == modules
    assert all(torch.equal(value, weights[name]) for name, value in trainer.model.state_dict().items())
    (tmp_path / "run").mkdir()
    (tmp_path / "run/file").touch()
    with pytest.raises(InputError, match="run is not empty"):
        trainer.train()
    (tmp_path / "run/file").unlink()
    assert trainer.train().metrics == make_trainer(tiny_checkpoint, tmp_path / "other").train().metrics


class Misspelled(Callback):
    def on_stpe(self, *arguments: object) -> None:
        """Is never called."""


@pytest.mark.parametrize(
    ("callbacks", "problems"),
    [
        ([print], [r"callbacks: <built-in function print> is no callback\. Derive a class from detr_ft\.Callback"]),
        ([Callback], [r"callbacks: Callback is a class\. Write Callback\(\)\."]),
        (Callback(), [r"callbacks: must be a list, got a Callback\. Write callbacks=\[\.\.\.\]\."]),
        (None, [r"callbacks: must be a list, got None\."]),
        (
            [Misspelled(), Recorder(), Recorder],
            [r"callbacks: Misspelled\.on_stpe is never called\. Rename it to on_step\.", "Recorder is a class"],
        ),
    ],
    ids=["a function", "a class", "no list", "nothing", "a misspelled method"],
)
def test_other_objects_are_refused_before_anything_is_read(
    tiny_checkpoint: Path, tmp_path: Path, callbacks: Any, problems: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        train(model="absent", data="absent", output_dir=tmp_path / "run", callbacks=callbacks)
    assert len(caught.value.problems) == len(problems)
    for message, pattern in zip(caught.value.problems, problems, strict=True):
        assert re.search(pattern, message)
    with pytest.raises(InputError):
        unprepared_trainer(tiny_checkpoint, tmp_path / "run", callbacks=callbacks)


def test_the_remedy_is_a_checkpoint_that_exists(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CallbackError, match=r"Correct the callback, and start the run again\.$"):
        make_trainer(tiny_checkpoint, tmp_path / "first", callbacks=[Failing("on_step")]).train()
    with pytest.raises(CallbackError, match=r"resume the run from .*step-6\.$"):
        make_trainer(tiny_checkpoint, tmp_path / "last", callbacks=[Failing("on_end")]).train()
