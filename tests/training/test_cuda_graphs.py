"""CUDA graphs add the gradients of eager passes; on a CPU a replay runs the work again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_run import make_trainer

from detr_ft.criterion import detr_criterion
from detr_ft.models.freeze import live_norms
from detr_ft.training.cuda_graphs import CudaGraphForwardBackward, GraphPool, build_forward_backward
from detr_ft.training.step import EagerForwardBackward
from detr_ft.training.trainer import DetrTrainer


class Again(GraphPool):
    """Does recorded work again, on a processor."""

    def __init__(self) -> None:
        self.recorded = 0

    def random_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def restore_random_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)

    def warm_up(self, work: Callable[[], None]) -> None:
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        work()
        self.recorded += 1
        return work


def trained(start: Path, folder: Path, pool: GraphPool | None, **settings: Any) -> DetrTrainer:
    """A short run, by replayed passes if there is a pool."""
    trainer = make_trainer(start, folder, logging_steps=1, num_train_epochs=3, **settings)
    if pool is not None:
        trainer.stepper.forward_backward = replayed(trainer, pool)
    trainer.train()
    return trainer


def replayed(trainer: DetrTrainer, pool: GraphPool) -> CudaGraphForwardBackward:
    plain = trainer.stepper.forward_backward
    assert isinstance(plain, EagerForwardBackward)
    return CudaGraphForwardBackward(plain, trainer.accelerator, trainer.model, trainer.stepper.attached, pool)


def rows(trainer: DetrTrainer) -> list[dict[str, float]]:
    timed = ("images_per_second", "seconds_per_step")
    return [{key: one[key] for key in one if key not in timed} for one in trainer.monitor.log.read()]


SETTINGS = [
    {},
    {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    {"per_device_train_batch_size": 5},
]
NAMES = ["whole steps", "accumulated", "a last batch that is smaller"]


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_a_run_is_the_same(tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, int]) -> None:
    """But for rounding: dropout is the same, too."""
    pool = Again()
    plain, fast = (trained(tiny_checkpoint, tmp_path / str(one), one, **settings) for one in (None, pool))
    assert pool.recorded >= 2
    expected, replayed_rows = ([row for row in rows(run) if "loss" in row] for run in (plain, fast))
    for row, other in zip(expected, replayed_rows, strict=True):
        assert other == pytest.approx(row, rel=1e-3)


@pytest.mark.parametrize("settings", SETTINGS, ids=NAMES)
def test_gradients_are_the_same(tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, int]) -> None:
    gradients: list[list[torch.Tensor]] = []
    for pool in (None, Again()):
        trainer = make_trainer(tiny_checkpoint, tmp_path / str(pool), **settings)
        if pool is not None:
            trainer.stepper.forward_backward = replayed(trainer, pool)
        trainer.stepper.start_epoch(0)
        for param_group in trainer.stepper.optimizer.param_groups:
            param_group["lr"] = 0.0
        steps: list[list[torch.Tensor]] = []
        trainer.stepper.optimizer.optimizer.register_step_pre_hook(
            lambda *_, steps=steps, trainer=trainer: steps.append(
                [one.grad.clone() for one in trainer.model.parameters() if one.grad is not None]
            )
        )
        for number, batch in zip(range(1, 6), trainer.loader.steps(), strict=False):
            trainer.stepper.schedule.base_lrs = [0.0] * len(trainer.stepper.optimizer.param_groups)
            trainer.stepper.step(batch, number)
        gradients.append([gradient for step in steps for gradient in step])
    assert len(gradients[0]) > 100
    for gradient, other in zip(*gradients, strict=True):
        atol = 1e-5 * gradient.abs().max().item() + 1e-9
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=atol)


def test_a_new_shape_runs_eagerly_and_a_repeated_one_is_captured(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pool = Again()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=3, per_device_train_batch_size=5)
    trainer.stepper.forward_backward = passes = replayed(trainer, pool)
    trainer.train()  # batches of 5, 5 and 2, thrice
    assert {shape[0] for shape in passes._graphs} == {5, 2}
    assert pool.recorded == 4


def test_the_first_of_many_shapes_are_captured(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detr_ft.training.cuda_graphs._MAX_CAPTURED_SHAPES", 1)
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=3, per_device_train_batch_size=5)
    trainer.stepper.forward_backward = passes = replayed(trainer, Again())
    trainer.train()
    assert {shape[0] for shape in passes._graphs} == {5}


def test_warm_ups_leave_the_statistics_of_live_norms(tiny_checkpoint: Path, tmp_path: Path) -> None:
    statistics = []
    for pool in (None, Again()):
        trainer = make_trainer(tiny_checkpoint, tmp_path / str(pool), num_train_epochs=3)
        live_norms(trainer.model)
        if pool is not None:
            trainer.stepper.forward_backward = replayed(trainer, pool)
        trainer.stepper.start_epoch(0)
        for number, batch in zip(range(1, 3), trainer.loader.steps(), strict=False):  # the second is recorded
            trainer.stepper.step(batch, number)
        statistics.append({name: one.clone() for name, one in trainer.model.named_buffers() if "running" in name})
    assert statistics[0]
    for name, value in statistics[0].items():
        torch.testing.assert_close(statistics[1][name], value, rtol=1e-3, atol=1e-4)


class Torn(Again):
    """Can't record."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")


def test_a_failed_capture_runs_eagerly_with_one_warning(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = trained(tiny_checkpoint, tmp_path / "plain", None)
    with caplog.at_level(logging.WARNING):
        torn = trained(tiny_checkpoint, tmp_path / "torn", Torn())
    assert rows(plain) == rows(torn)  # bit for bit: it is the plain way
    (message,) = [one for one in caplog.messages if "CUDA graphs" in one]
    assert "operation not permitted when stream is capturing" in message
    assert "and more" not in message
    assert "train.cuda_graphs=false" in message


def test_a_criterion_without_gradient_for_a_part_is_not_captured(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A part without a gradient is left alone by the optimizer, with its weight decay; zeros would not be."""
    pool = Again()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=3)
    trainer.stepper.forward_backward = replayed(trainer, pool)
    criterion = detr_criterion()
    trainer.stepper.criterion = _ClassesAlone(criterion)  # type: ignore[assignment]
    trainer.train()
    assert pool.recorded == 0


class _ClassesAlone:
    """The terms of the classes of a criterion."""

    def __init__(self, criterion: Any) -> None:
        self._criterion = criterion

    def __getattr__(self, name: str) -> Any:
        return getattr(self._criterion, name)

    def at(self, epoch: int) -> _ClassesAlone:
        return self

    def __call__(self, *arguments: Any) -> Any:
        _, terms = self._criterion(*arguments)
        return terms["loss_ce"], terms


def test_a_cpu_runs_eagerly(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    assert isinstance(trainer.stepper.forward_backward, EagerForwardBackward)
    passes = build_forward_backward(
        trainer.accelerator,
        trainer.model,
        trainer.stepper.forward_backward.wrapped,
        trainer.stepper.attached,
        trainer.settings,
    )
    assert isinstance(passes, EagerForwardBackward)
