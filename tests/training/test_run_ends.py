"""The end of a run: averages, best model, patience, time limit; precision, memory and trackers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import make_trainer, stop_after, with_maps
from transformers import DetrForObjectDetection

from detr_ft.errors import InputError, Interrupted
from detr_ft.models.optimizations import memory
from detr_ft.training.stopping import Best, best_of


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(DetrForObjectDetection.from_pretrained(folder).state_dict())


def test_averaged_weights_are_the_model_and_raw_ones_are_saved_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", ema_decay=0.5, learning_rate=1e-2)
    weights_after: list[dict[str, torch.Tensor]] = []
    trainer.stepper.optimizer.optimizer.register_step_post_hook(
        lambda *_: weights_after.append(
            {name: one.detach().cpu().clone() for name, one in trainer.model.named_parameters()}
        )
    )
    start = {name: one.detach().cpu().clone() for name, one in trainer.model.named_parameters()}
    result = trainer.train()
    assert trainer.stepper.ema is not None
    expected = start
    for number, now in enumerate(weights_after, start=1):
        decay = min(0.5, (1 + number) / (10 + number))
        expected = {name: decay * expected[name] + (1 - decay) * now[name] for name in now}
    saved, raw = weights(tmp_path / "run"), weights(tmp_path / "run/raw")
    assert all(torch.allclose(saved[name], one, rtol=1e-5, atol=1e-6) for name, one in expected.items())
    assert all(torch.equal(raw[name], one) for name, one in weights_after[-1].items())
    assert all({"map", "raw_map", "raw_map_50"} <= set(row) for row in result.log if "map" in row)
    assert result.metrics["map"] == result.log[-1]["map"]


def test_a_resumed_average_is_equal_bit_for_bit(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = make_trainer(tiny_checkpoint, tmp_path / "whole", ema_decay=0.9)
    whole.train()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", ema_decay=0.9)
    stop_after(trainer, 4)
    with pytest.raises(Interrupted):
        trainer.train()
    make_trainer(
        tiny_checkpoint, tmp_path / "run", ema_decay=0.9, checkpoint=tmp_path / "run/checkpoints/step-4"
    ).train()
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_best_model_is_restored_after_early_stopping(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(
        tiny_checkpoint, tmp_path / "run", num_train_epochs=9, early_stopping_patience=2, load_best_model_at_end=True
    )
    with_maps(trainer, [0.1, 0.3, 0.2, 0.25, 0.3])
    result = trainer.train()
    assert [row["map"] for row in result.log if "map" in row] == [0.1, 0.3, 0.2, 0.25]
    assert result.metrics["map"] == 0.3  # of the best, evaluated again
    best, final = weights(tmp_path / "run/checkpoints/best"), weights(tmp_path / "run")
    assert all(torch.equal(best[name], final[name]) for name in best)
    assert (tmp_path / "run/checkpoints/step-12").is_dir()  # where it ended
    last = load_file(tmp_path / "run/checkpoints/step-12/model.safetensors")
    assert any(not torch.equal(last[name], value) for name, value in final.items())


def test_by_default_the_last_model_is_saved(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=3)
    with_maps(trainer, [0.3, 0.2, None])
    trainer.train()
    final, last = weights(tmp_path / "run"), load_file(tmp_path / "run/checkpoints/step-9/model.safetensors")
    assert all(torch.equal(last[name], value) for name, value in final.items())


def test_the_best_row_is_the_first_that_none_exceeds_by_the_threshold() -> None:
    rows: list[dict[str, Any]] = [{"step": 1, "loss": 3.0}, {"step": 2, "map": None}]
    assert best_of(rows, "map") is None
    rows += [{"step": step, "map": value} for step, value in ((4, 0.2), (6, 0.25), (8, None), (10, 0.24))]
    assert best_of(rows, "map") == Best(0.25, 6, 1)
    assert best_of(rows, "map", threshold=0.1) == Best(0.2, 4, 2)


def test_after_the_time_limit_the_model_is_evaluated_and_saved(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=500, max_minutes=100)
    clock, shown = trainer.stop_requests.clock, trainer.display.step

    def step(number: int, row: dict[str, Any] | None) -> None:
        shown(number, row)
        clock.start(clock.seconds + 1000)  # as if each step took so many seconds

    trainer.display.step = step  # type: ignore[method-assign]
    result = trainer.train()
    assert trainer.progress.step == 6
    assert 6000 < result.seconds < 7000
    assert result.log[-1]["step"] == trainer.progress.step
    assert result.metrics["map"] is not None
    assert (tmp_path / "run/model.safetensors").is_file()


def test_checkpointed_gradients_are_the_gradients(tmp_path: Path) -> None:
    from support.single_step import first_step
    from support.single_step import make_trainer as make_exact

    plain = first_step(make_exact(tmp_path / "plain", 8, 8, 8))
    trainer = make_exact(tmp_path / "less", 8, 8, 8)
    memory.apply(trainer.model, gradient_checkpointing=True, compile=False)
    less = first_step(trainer)
    assert plain.keys() == less.keys()
    assert all(torch.allclose(plain[name], less[name], rtol=1e-9, atol=1e-12) for name in plain)


@pytest.mark.parametrize(("checkpointing", "times"), [(False, 1), (True, 2)])
def test_checkpointed_layers_run_again_for_the_backward_pass(
    tiny_checkpoint: Path, tmp_path: Path, checkpointing: bool, times: int
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", gradient_checkpointing=checkpointing)
    runs = []
    trainer.model.train()
    trainer.model.model.encoder.layers[0].self_attn.register_forward_hook(lambda *_: runs.append(1))
    trainer.stepper.step(next(iter(trainer.loader.steps())), 1)
    assert len(runs) == times


def test_a_cpu_trains_in_bf16_and_not_in_fp16(tiny_checkpoint: Path, tmp_path: Path) -> None:
    result = make_trainer(tiny_checkpoint, tmp_path / "run", bf16=True).train()
    assert all(row["loss"] < 100 for row in result.log if "loss" in row)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"train\.fp16: .*train\.bf16"):
            make_trainer(tiny_checkpoint, tmp_path / "other", fp16=True)


def test_a_trackers_board_has_the_rows_of_the_log(tiny_checkpoint: Path, tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = make_trainer(tiny_checkpoint, tmp_path / "run", report_to=["tensorboard"], logging_steps=1).train()
    (events,) = (tmp_path / "run").rglob("events.out.*")
    board = reading.EventAccumulator(str(events.parent)).Reload()
    losses = [(row["step"], row["loss"]) for row in result.log if "loss" in row]
    assert [(one.step, pytest.approx(one.value)) for one in board.Scalars("loss")] == losses
    maps = [(row["step"], row["map"]) for row in result.log if "map" in row]
    assert [(one.step, pytest.approx(one.value)) for one in board.Scalars("map")] == maps
    assert [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()] == result.log


def test_a_missing_tracker_is_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.report_to: .*pip install aim"):
        make_trainer(tiny_checkpoint, tmp_path / "run", report_to=["aim"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("maps", "reported"), [([0.5, 0.2], True), ([0.2, 0.5], False), ([0.3, 0.3], False), ([0.3, None], True)]
)
def test_an_evaluation_better_than_the_last_is_reported(
    maps: list[float | None], reported: bool, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=2)
    with_maps(trainer, maps)
    better = trainer.train().better
    last = "none" if maps[-1] is None else f"{maps[-1]:.3f}"
    assert bool(better) == reported
    assert (f"(map {maps[0]:.3f}, at the end {last})" in better) == reported
    assert ("checkpoints/best" in better and "train.load_best_model_at_end=true" in better) == reported
