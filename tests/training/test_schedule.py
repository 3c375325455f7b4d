from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.small_run import make_trainer
from torch import nn
from torch.optim import AdamW

from detr_ft.training.optimizer import build_schedule, warmup_of
from detr_ft.training.settings import TrainSettings

HALF = math.sqrt(0.5)


def settings(**values: Any) -> TrainSettings:
    return TrainSettings(**{"output_dir": "x", "num_train_epochs": 4} | values)


def factors(steps: int, **values: Any) -> list[float]:
    """The rate of each step, as parts of what the optimizer began with; the same for a second group."""
    first_weight, second_weight = (nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = AdamW([{"params": [first_weight], "lr": 1e-2}, {"params": [second_weight], "lr": 1e-5}])
    schedule = build_schedule(optimizer, settings(**values), steps)
    factors_of_steps = []
    for _ in range(steps):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert second / 1e-5 == pytest.approx(first / 1e-2)
        factors_of_steps.append(first / 1e-2)
        optimizer.step()
        schedule.step()
    return factors_of_steps


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"lr_scheduler_type": "constant"}, [1] * 8),
        ({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 4}, [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
        ({"lr_scheduler_type": "linear"}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"lr_scheduler_type": "linear", "warmup_steps": 0.5}, [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25]),
        (
            {"lr_scheduler_type": "cosine", "warmup_steps": 4},
            [0, 0.25, 0.5, 0.75, 1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2],
        ),
        ({"lr_scheduler_type": "polynomial"}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (
            {"lr_scheduler_type": "polynomial", "lr_power": 2, "warmup_steps": 4},
            [0, 0.25, 0.5, 0.75, 1, 9 / 16, 4 / 16, 1 / 16],
        ),
        ({"lr_scheduler_type": "step", "lr_drop_epochs": [3]}, [1, 1, 1, 1, 1, 1, 0.1, 0.1]),
        (
            {"lr_scheduler_type": "step", "lr_drop_epochs": [3, 2], "warmup_steps": 2},
            [0, 0.5, 1, 1, 0.1, 0.1, 0.01, 0.01],
        ),
    ],
)
def test_rates_are_those_computed_by_hand(values: dict[str, Any], expected: list[float]) -> None:
    assert factors(8, **values) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["constant_with_warmup", "linear", "cosine", "polynomial", "step"])
def test_a_warmup_longer_than_the_run_is_shortened_with_a_warning(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    drops = {"lr_drop_epochs": [3]} if kind == "step" else {}
    with caplog.at_level(logging.WARNING):
        values = factors(4, lr_scheduler_type=kind, warmup_steps=100, **drops)
    assert values == pytest.approx([0, 0.25, 0.5, 0.075 if drops else 0.75])
    assert "train.warmup_steps: a warm-up of 100 steps" in caplog.text


@given(st.integers(1, 10_000), st.floats(0, 0.999) | st.integers(1, 20_000).map(float))
def test_a_warmup_is_that_of_transformers_within_the_run(steps: int, setting: float) -> None:
    expected = math.ceil(steps * setting) if setting < 1 else int(setting)  # TrainingArguments.get_warmup_steps
    assert warmup_of(settings(warmup_steps=setting), steps) == min(expected, steps)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup_steps": 1.5}, "whole number of steps"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "use constant_with_warmup"),
        ({"lr_scheduler_type": "step"}, "needs lr_drop_epochs"),
        ({"lr_scheduler_type": "cosine", "lr_drop_epochs": [2]}, "lr_drop_epochs needs lr_scheduler_type step"),
        ({"lr_scheduler_type": "step", "lr_drop_epochs": [4]}, "lr_drop_epochs .*num_train_epochs=4"),
        ({"lr_scheduler_type": "step", "lr_drop_epochs": [2, 2]}, "lr_drop_epochs must be different"),
        ({"lr_scheduler_type": "step", "lr_drop_epochs": [0]}, "greater than or equal to 1"),
        ({"lr_power": 2}, "lr_power needs lr_scheduler_type polynomial"),
        ({"lr_scheduler_type": "plateau"}, "'polynomial' or 'step'"),
    ],
)
def test_settings_without_effect_are_errors(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**values)


def test_all_incompatible_settings_are_reported_together() -> None:
    with pytest.raises(ValueError, match=r"lr_drop_epochs needs .*; lr_power needs"):
        settings(lr_drop_epochs=[1], lr_power=2)


def test_a_step_skipped_by_half_precision_leaves_later_rates(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"lr_scheduler_type": "linear", "logging_steps": 1}
    plain = make_trainer(tiny_checkpoint, tmp_path / "plain", **settings).train().log
    trainer = make_trainer(tiny_checkpoint, tmp_path / "skips", **settings)
    skipped = property(lambda self: trainer.progress.step < 2)
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", skipped)
    rates = [[row["learning_rate"] for row in log if "loss" in row] for log in (plain, trainer.train().log)]
    assert rates[0] == rates[1]
    assert len(set(rates[0])) == len(rates[0]) == 6
