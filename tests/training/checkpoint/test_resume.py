"""A resumed run equals an uninterrupted one, bit for bit."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import make_trainer
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from detr_ft.data.augmentation.builtin import Light
from detr_ft.errors import InputError, Interrupted
from detr_ft.models.load import load_model
from detr_ft.training.checkpoint.state import files_of, load_weights
from detr_ft.training.checkpoint.store import Checkpoints
from detr_ft.training.trainer import DetrTrainer

TIMES = {"images_per_second", "seconds_per_step"}


def stop_after(trainer: DetrTrainer, step: int, number: int = signal.SIGTERM) -> None:
    """Let the process have a signal when so many steps are taken."""
    shown = trainer.display.step

    def step_and_signal(at: int, row: dict[str, Any] | None) -> None:
        shown(at, row)
        if at == step:
            os.kill(os.getpid(), number)

    trainer.display.step = step_and_signal  # type: ignore[method-assign]


def newest(folder: Path) -> Path:
    checkpoint = Checkpoints(folder / "checkpoints", 2).newest()
    assert checkpoint is not None
    return checkpoint


def moments(trainer: DetrTrainer) -> list[torch.Tensor]:
    state = trainer.stepper.optimizer.state_dict()["state"]
    return [value for one in state.values() for value in one.values()]


@pytest.mark.parametrize(
    ("workers", "accumulation", "stops"),
    [(0, 1, [5]), (0, 2, [3, 4, 7]), (2, 1, [6]), (2, 2, [5])],
    ids=["in an epoch", "often, accumulated", "between epochs, workers", "workers, accumulated"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    tiny_checkpoint: Path, tmp_path: Path, workers: int, accumulation: int, stops: list[int]
) -> None:
    settings = {
        "num_train_epochs": 4, "per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation,
        "dataloader_num_workers": workers, "warmup_steps": 4, "logging_steps": 3,
    }  # fmt: skip
    whole = make_trainer(tiny_checkpoint, tmp_path / "whole", augment=Light(), **settings)
    expected = whole.train()
    assert whole.progress.step == 12
    checkpoint = None
    for stop in stops:
        trainer = make_trainer(tiny_checkpoint, tmp_path / "run", augment=Light(), checkpoint=checkpoint, **settings)
        stop_after(trainer, stop)
        with pytest.raises(Interrupted):
            trainer.train()
        checkpoint = newest(tmp_path / "run")
        assert checkpoint.name == f"step-{stop}"
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", augment=Light(), checkpoint=checkpoint, **settings)
    result = trainer.train()
    first, second = (one.model.state_dict() for one in (whole, trainer))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(a, b) for a, b in zip(moments(whole), moments(trainer), strict=True))
    assert result.metrics == expected.metrics
    logs = [[{k: v for k, v in row.items() if k not in TIMES} for row in one.log] for one in (expected, result)]
    assert logs[0] == logs[1]
    written = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert written == result.log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_of_that_step_and_no_final_model(
    tiny_checkpoint: Path, tmp_path: Path, number: int
) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run")
    stop_after(trainer, 2, number)
    with pytest.raises(Interrupted) as caught:
        trainer.train()
    assert caught.value.signal == number
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "log.jsonl", "written.json"]
    saved, _ = load_model(str(tmp_path / "run/checkpoints/step-2"))  # as any checkpoint
    ended = trainer.model.cpu().state_dict()
    assert all(torch.equal(a, b) for a, b in zip(saved.state_dict().values(), ended.values(), strict=True))


def test_a_signal_ends_an_evaluation_which_the_resumed_run_repeats(tiny_checkpoint: Path, tmp_path: Path) -> None:
    expected = make_trainer(tiny_checkpoint, tmp_path / "whole").train()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", per_device_eval_batch_size=2)
    evaluated: list[int] = []

    def interrupted(images: int, total: int) -> None:
        evaluated.append(images)
        if images == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.display.evaluating = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.train()
    assert evaluated == [1, 2, 3, 4]
    checkpoint = newest(tmp_path / "run")
    assert checkpoint.name == "step-3"
    assert "map" not in (tmp_path / "run/log.jsonl").read_text()
    result = make_trainer(tiny_checkpoint, tmp_path / "run", checkpoint=checkpoint).train()
    assert [row["map"] for row in result.log if "map" in row] == [row["map"] for row in expected.log if "map" in row]


def test_a_signal_in_the_evaluation_of_averaged_weights_saves_raw_ones(tiny_checkpoint: Path, tmp_path: Path) -> None:
    settings = {"ema_decay": 0.9, "learning_rate": 1e-2, "per_device_eval_batch_size": 2}
    whole = make_trainer(tiny_checkpoint, tmp_path / "whole", **settings)
    whole.train()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **settings)
    evaluated: list[int] = []

    def interrupted(images: int, total: int) -> None:
        evaluated.append(images)
        if len(evaluated) == total + 3:  # of raw weights all images are evaluated, then of averaged ones
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.display.evaluating = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.train()
    resumed = make_trainer(tiny_checkpoint, tmp_path / "run", checkpoint=newest(tmp_path / "run"), **settings)
    resumed.train()
    first, second = (load_file(tmp_path / name / "raw/model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_signal_while_a_checkpoint_is_written_completes_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", save_steps=2)
    files = trainer.state.files

    def interrupted(facts: Any, seconds: float) -> dict[str, bytes]:
        os.kill(os.getpid(), signal.SIGTERM)
        return files(facts, seconds)

    trainer.state.files = interrupted  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        trainer.train()
    assert newest(tmp_path / "run").name == "step-2"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "log.jsonl", "written.json"]
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-2"]


def test_checkpoints_are_written_every_save_steps_and_the_last_stay(tiny_checkpoint: Path, tmp_path: Path) -> None:
    make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=3, save_steps=2, save_total_limit=3).train()
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["best", "step-6", "step-8", "step-9"]


def test_a_damaged_log_is_reported_and_the_run_resumes(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_trainer(tiny_checkpoint, tmp_path / "run", logging_steps=1, num_train_epochs=1).train()
    log = tmp_path / "run/log.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], lines[1][:20], *lines[2:]]) + "\n")
    result = make_trainer(
        tiny_checkpoint, tmp_path / "run", logging_steps=1, checkpoint=newest(tmp_path / "run")
    ).train()
    assert "log.jsonl: 2 of 3 rows are left, line 2 is damaged" in caplog.text
    assert [row["step"] for row in result.log] == [1, 3, 3, 4, 5, 6, 6]
    assert [json.loads(line) for line in log.read_text().splitlines()] == result.log


def test_with_another_batch_size_it_resumes_at_the_same_image(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", per_device_train_batch_size=2)
    stop_after(trainer, 4)
    with pytest.raises(Interrupted):
        trainer.train()
    again = make_trainer(
        tiny_checkpoint, tmp_path / "run", checkpoint=newest(tmp_path / "run"), per_device_train_batch_size=4
    )
    assert (again.progress.step, again.progress.epoch, again.progress.index) == (4, 0, 2)
    again.train()
    assert again.progress.epoch == 2


def test_a_checkpoint_of_another_model_is_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=1)
    trainer.train()
    checkpoint = newest(tmp_path / "run")
    config = trainer.model.config
    config.num_queries = 9
    with pytest.raises(InputError, match=r"another model.*1 weights differ.*\[8, 32\] and not \[9, 32\]: model\.query"):
        load_weights(DetrForObjectDetection(config), checkpoint)
    config.decoder_layers, config.num_queries = 2, 8
    with pytest.raises(InputError, match=r"differ, the first is unknown to the model: model\.decoder\.layers\.2"):
        load_weights(DetrForObjectDetection(config), checkpoint)


@pytest.mark.slow
def test_every_tensor_of_a_real_detr_is_restored_unlike_by_stock_loading(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = DetrConfig(backbone_config=ResNetConfig(out_features=["stage4"]))
    model, other = DetrForObjectDetection(config), DetrForObjectDetection(config)
    processor = type("Processor", (), {"to_json_string": lambda self: "{}"})()
    folder = Checkpoints(tmp_path / "ours", 1).save(1, files_of(model, processor, {}, {}))
    load_weights(other, folder)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    model.save_pretrained(tmp_path / "stock")
    stored = load_file(tmp_path / "stock/model.safetensors")
    missing = DetrForObjectDetection(config).load_state_dict(stored, strict=False).missing_keys  # as Trainer resumes
    assert len(missing) > 100
