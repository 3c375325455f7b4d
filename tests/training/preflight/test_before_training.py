"""Before a long run one batch is overfitted, and the run is then what it would have been."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from support.small_run import make_trainer

from detr_ft.training.preflight import probe
from detr_ft.training.preflight.probe import check_before_training


@pytest.mark.parametrize(
    ("rate", "level", "verdicts"), [(1e-9, "WARNING", ("fail",)), (5e-3, "INFO", ("slow", "pass"))]
)
def test_a_long_run_overfits_one_batch_first(
    tiny_checkpoint: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    rate: float,
    level: str,
    verdicts: tuple[str, ...],
) -> None:
    settings = {"learning_rate": rate, "max_grad_norm": 10, "per_device_train_batch_size": 1, "num_train_epochs": 500}
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **settings)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        check_before_training(trainer)
    assert trainer.loader.total_steps == 6000
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())
    assert all(one.grad is None for one in trainer.model.parameters())
    (record,) = [one for one in caplog.records if "one batch: " in one.getMessage()]
    assert record.levelname == level
    assert record.getMessage().split(": ")[1] in verdicts


def test_the_overfit_does_not_change_the_run(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = make_trainer(tiny_checkpoint, tmp_path / "plain")
    plain.train()
    monkeypatch.setattr(probe, "_MIN_STEPS_TO_OVERFIT", 6)
    looked = make_trainer(tiny_checkpoint, tmp_path / "looked", ema_decay=0.9)
    with caplog.at_level(logging.INFO):
        check_before_training(looked)
    looked.train()
    assert "one batch: " in caplog.text
    first, second = (one.model.state_dict() for one in (plain, looked))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_short_run_starts_without_overfit(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        check_before_training(make_trainer(tiny_checkpoint, tmp_path / "run"))
    assert "one batch" not in caplog.text
