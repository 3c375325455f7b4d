"""Weaknesses of the stock Trainer with DETR. If a test fails, a claim of the documentation is out of date.

tests/training/checkpoint/test_resume.py (all tensors resumed) and tests/models/test_split_step.py (box losses that grow with the
processes) have others.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from support.small_run import make_trainer
from torch.utils.data import Dataset as TorchDataset
from transformers import DetrForObjectDetection, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

from detr_ft.criterion import CriterionError, detr_criterion
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainDataset, TrainTransform, collate
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.models.attach import attach_criterion
from detr_ft.models.freeze import set_trainable
from detr_ft.models.label_map import fit_labels
from detr_ft.models.load import load_model
from detr_ft.training.trainer import TrainingError

Spoil = Callable[[dict[str, Any]], dict[str, Any]]

pytestmark = pytest.mark.filterwarnings("ignore")  # of the stock Trainer


class Spoiled(TorchDataset[dict[str, Any]]):
    """The examples of a split, changed."""

    def __init__(self, split: Dataset, form: ImageFormat, spoil: Spoil) -> None:
        self.examples, self.spoil = TrainDataset(split, TrainTransform(form), 0), spoil

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.spoil(self.examples[index])


def stock(start: Path, folder: Path, spoil: Spoil = lambda example: example, **arguments: Any) -> Trainer:
    """Transformers' Trainer with its own loss, on the same scenes as `make_trainer`."""
    data = generate("workshop?train=12&validation=6&edge=64")["train"]
    model, processor = load_model(str(start))
    fit_labels(model, data.features["objects"]["category"].feature.names)
    set_trainable(model, [])
    form = ImageFormat.of(processor)
    usual = {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1}
    return Trainer(
        model,
        TrainingArguments(
            output_dir=str(folder), remove_unused_columns=False, report_to="none", use_cpu=True,
            dataloader_pin_memory=False, disable_tqdm=True, **(usual | arguments),
        ),
        data_collator=partial(_batch, form),
        train_dataset=Spoiled(data, form, spoil),
    )  # fmt: skip


def _batch(form: ImageFormat, examples: list[dict[str, Any]]) -> dict[str, Any]:
    return dict(form.normalize(collate(examples)))


def finite(model: torch.nn.Module) -> bool:
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())


def infinite_box(example: dict[str, Any]) -> dict[str, Any]:
    example["labels"]["boxes"][:1, 2] = float("inf")
    return example


def test_one_infinity_ruins_a_stock_run_silently(tiny_checkpoint: Path, tmp_path: Path) -> None:
    trainer = stock(tiny_checkpoint, tmp_path / "stock", infinite_box, max_steps=1)
    trainer.train()  # to its end
    assert not finite(trainer.model)
    trainer.save_model(str(tmp_path / "stock"))
    assert not finite(DetrForObjectDetection.from_pretrained(tmp_path / "stock"))
    ours = make_trainer(tiny_checkpoint, tmp_path / "ours")
    made = ours.loader.examples.at
    ours.loader.examples.at = lambda epoch, index: infinite_box(made(epoch, index))  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="step 1, images"):
        ours.train()
    assert finite(ours.model)


def test_a_label_beyond_the_classes_trains_stock_as_no_object(tiny_model: DetrForObjectDetection) -> None:
    labels = [
        {"class_labels": torch.tensor([3]), "boxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]])}
    ]  # of 3 classes, 0 to 2
    assert tiny_model(pixel_values=torch.randn(1, 3, 64, 64), labels=labels).loss.isfinite()
    attach_criterion(tiny_model, detr_criterion())
    with pytest.raises(CriterionError, match="Class 3 is no-object"):
        tiny_model(pixel_values=torch.randn(1, 3, 64, 64), labels=labels)


def test_a_half_written_checkpoint_ends_a_stock_resume(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Ours: test_checkpoints.py, where the one before it is taken."""
    stock(tiny_checkpoint, tmp_path, save_strategy="steps", save_steps=2).train()
    newest = tmp_path / "checkpoint-6/model.safetensors"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    assert (tmp_path / "checkpoint-4/model.safetensors").is_file()
    with pytest.raises(Exception, match=r"[Ii]nvalid|incomplete|header|covers|deserializ"):
        stock(tiny_checkpoint, tmp_path).train(resume_from_checkpoint=True)


class At(TrainerCallback):
    """Do something once a step is taken."""

    def __init__(self, step: int, action: Callable[[], object]) -> None:
        self.step, self.action = step, action

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        if state.global_step == self.step:
            self.action()


def test_stock_mid_epoch_resume_draws_other_augmentations(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Ours: test_resume.py, bit for bit with augmentation."""
    drawn: list[float] = []

    def augment(example: dict[str, Any]) -> dict[str, Any]:
        drawn.append(torch.rand(()).item())
        return example

    saving = {"save_strategy": "steps", "save_steps": 1, "seed": 0}
    stock(tiny_checkpoint, tmp_path / "whole", augment, **saving).train()
    whole = list(drawn)
    drawn.clear()
    resumed = stock(tiny_checkpoint, tmp_path / "whole", augment, **saving)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    assert drawn[-4:] != whole[8:12]
    assert drawn != whole[-len(drawn) :]


def test_a_stopped_stock_run_looks_finished(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Ours: test_train_command.py, where its status is 143 and nothing looks like an end."""
    before = signal.getsignal(signal.SIGTERM)
    trainer = stock(tiny_checkpoint, tmp_path, enable_jit_checkpoint=True, num_train_epochs=4)
    (manager,) = [
        callback.jit_manager
        for callback in trainer.callback_handler.callbacks
        if isinstance(callback, JITCheckpointCallback)
    ]
    manager.kill_wait = 0  # its grace period of three seconds

    def request_stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        while not manager.is_checkpoint_requested:
            time.sleep(0.01)

    trainer.add_callback(At(2, request_stop))
    try:
        trainer.train()  # no error: a script would continue to save and push
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trainer.state.global_step < 12
