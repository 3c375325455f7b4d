"""Tests that need a GPU: half precision, compiled parts, CUDA graphs, lack of memory, determinism."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.small_run import make_trainer, stop_after

from detr_ft.criterion import detr_criterion
from detr_ft.data.generated.generate import generate
from detr_ft.errors import Interrupted
from detr_ft.models.freeze import set_trainable
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.training.cuda_graphs import CudaGraphForwardBackward
from detr_ft.training.failures.replay import Capsule, replay
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.preflight.memory import fit_memory, try_largest
from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer, TrainingError

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.filterwarnings("ignore"),  # of compilers and drivers
]


def losses(log: list[dict[str, Any]]) -> list[float]:
    return [row["loss"] for row in log if "loss" in row]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_like_full_precision(tiny_checkpoint: Path, tmp_path: Path, precision: str) -> None:
    settings = {"num_train_epochs": 10, "logging_steps": 5}
    half = losses(make_trainer(tiny_checkpoint, tmp_path / "half", **settings, **{precision: True}).train().log)
    whole = losses(make_trainer(tiny_checkpoint, tmp_path / "whole", **settings).train().log)
    assert half[0] == pytest.approx(whole[0], rel=0.02)
    assert half[-1] == pytest.approx(whole[-1], rel=0.1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_resumed_run_is_equal_bit_for_bit(tiny_checkpoint: Path, tmp_path: Path, precision: str) -> None:
    settings = {"num_train_epochs": 4, "full_determinism": True, "ema_decay": 0.9, precision: True}
    whole = make_trainer(tiny_checkpoint, tmp_path / "whole", **settings).train()
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", **settings)
    stop_after(trainer, 5)
    with pytest.raises(Interrupted):
        trainer.train()
    again = make_trainer(tiny_checkpoint, tmp_path / "run", checkpoint=tmp_path / "run/checkpoints/step-5", **settings)
    assert losses(again.train().log) == losses(whole.log)
    for name in ("model.safetensors", "raw/model.safetensors"):
        first, second = load_file(tmp_path / "whole" / name), load_file(tmp_path / "run" / name)
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_compiled_parts_are_the_same_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    plain = losses(make_trainer(tiny_checkpoint, tmp_path / "plain", logging_steps=1).train().log)
    trainer = make_trainer(tiny_checkpoint, tmp_path / "compiled", logging_steps=1, torch_compile=True)
    compiled = losses(trainer.train().log)
    assert compiled[0] == pytest.approx(plain[0], rel=1e-3)
    assert compiled[-1] == pytest.approx(plain[-1], rel=0.02)
    saved = load_file(tmp_path / "compiled/model.safetensors")
    assert saved.keys() == load_file(tmp_path / "plain/model.safetensors").keys()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bf16": True},
        {"fp16": True},
        {"torch_compile": True},
        {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    ],
)
def test_steps_of_cuda_graphs_equal_eager_ones(
    tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"logging_steps": 1, "num_train_epochs": 5, "dataloader_num_workers": 1} | settings
    plain = losses(make_trainer(tiny_checkpoint, tmp_path / "plain", cuda_graphs=False, **settings).train().log)
    with caplog.at_level(logging.WARNING):
        trainer = make_trainer(tiny_checkpoint, tmp_path / "replayed", **settings)
        replayed = losses(trainer.train().log)
    passes = trainer.stepper.forward_backward
    assert isinstance(passes, CudaGraphForwardBackward)
    assert passes._graphs
    assert not [one for one in caplog.messages if "CUDA graphs" in one]
    exact = 1e-3 if settings.keys().isdisjoint({"bf16", "fp16"}) else 2e-2
    assert replayed == pytest.approx(plain, rel=exact)


def test_a_model_that_synchronizes_is_not_captured_and_trains_eagerly(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", logging_steps=1, num_train_epochs=5)

    def wait(module: Any, args: Any, output: Any) -> None:
        assert output[0].sum().item() < torch.inf

    trainer.model.model.decoder.layers[0].register_forward_hook(wait)
    with caplog.at_level(logging.WARNING):
        result = trainer.train()
    assert [one for one in caplog.messages if "CUDA graphs" in one]
    assert len(losses(result.log)) == 15


def make_larger(folder: Path, size: int, **settings: Any) -> DetrTrainer:
    model, processor = load_model("embedded:small")
    data = generate("workshop?train=64&validation=8&edge=128")
    fit_labels(model, data["train"].features["objects"]["category"].feature.names)
    set_trainable(model, [])
    trainer = DetrTrainer(
        model, detr_criterion(), data["train"], None,
        TrainSettings(
            output_dir=str(folder), num_train_epochs=1, per_device_train_batch_size=size, logging_steps=1, **settings
        ),
        processor=processor, display=PlainDisplay([].append),
    )  # fmt: skip
    trainer.setup()
    return trainer


@pytest.fixture
def room_for_half(tmp_path: Path) -> Any:
    """Memory between what a step of 32 images takes and one of 64."""
    used = []
    for size in (64, 32):
        torch.cuda.empty_cache()
        largest = try_largest(make_larger(tmp_path / f"measure-{size}", size), size)
        assert largest.mebibytes is not None
        used.append(largest.mebibytes)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory / 2**20
    assert used[1] < 0.8 * used[0], used
    torch.cuda.set_per_process_memory_fraction((0.35 * used[0] + 0.65 * used[1]) / total)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_out_of_memory_the_step_runs_in_smaller_parts(
    tmp_path: Path, room_for_half: None, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_larger(tmp_path / "run", 64)
    with caplog.at_level(logging.WARNING):
        short = trainer.train().log
    assert trainer.stepper.max_images < 64
    assert "out of memory with 64 images at once; from here on 32" in caplog.text
    torch.cuda.set_per_process_memory_fraction(1.0)
    ample = make_larger(tmp_path / "ample", 64).train().log
    assert losses(short) == pytest.approx(losses(ample), rel=0.02)  # dropout is drawn for other shapes


def test_the_largest_batch_is_tried_before_the_first_step(
    tmp_path: Path, room_for_half: None, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_larger(tmp_path / "run", 64)
    with caplog.at_level(logging.INFO):
        fit_memory(trainer)
    assert trainer.stepper.max_images < 64
    assert "out of memory with 64 images at once in the largest batch (128x128 pixels" in caplog.text


def test_a_capsule_of_a_gpu_is_replayed_on_a_cpu(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", bf16=True)
    made = trainer.loader.examples.at

    def spoiled(epoch: int, index: int) -> Any:
        example = made(epoch, index)
        example["labels"]["boxes"][:, 2] = float("nan")
        return example

    trainer.loader.examples.at = spoiled  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="replay"):
        trainer.train()
    verdict = replay(Capsule(tmp_path / "run/failures/step-1"), detr_criterion())
    assert verdict is not None
    assert verdict.origin == "target"
    assert json.loads((tmp_path / "run/failures/step-1/state.json").read_text())["mixed_precision"] == "bf16"


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_step_synchronizes_once(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tiny_checkpoint, tmp_path / "run", num_train_epochs=9, bf16=True)
    trainer.stepper.start_epoch(0)
    batch = next(iter(trainer.loader.steps()))
    for number in range(1, 5):  # by the third the shape is recorded
        trainer.stepper.step(batch, number)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        trainer.stepper.step(batch, 5)
        torch.cuda.set_sync_debug_mode("default")
    assert len([one for one in caught if "synchroniz" in str(one.message)]) == 1
