"""One step of the loop; rank 0 saves its loss terms and gradients.   torchrun single_step.py OUT IMAGES SIZE MICRO

A step has SIZE images for each process in micro-batches of MICRO, and the data has IMAGES of them, some without objects.
In float64, so that rounding does not hide a difference.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from conftest import tiny_config
from datasets import Dataset
from transformers import DetrForObjectDetection, DetrImageProcessor

from detr_ft.criterion import detr_criterion
from detr_ft.data.generated.generate import generate
from detr_ft.data.pipeline.dataset import TrainTransform
from detr_ft.data.pipeline.image_format import ImageFormat
from detr_ft.data.schema import class_names, detection_objects
from detr_ft.models.freeze import set_trainable
from detr_ft.training.monitor.display import PlainDisplay
from detr_ft.training.settings import TrainSettings
from detr_ft.training.trainer import DetrTrainer

EMPTY = (1, 4)


def images(number: int) -> Dataset:
    """Return scenes with objects, but two without."""
    split = generate(f"workshop?train={max(number, 2)}&validation=1&edge=64")["train"].select(range(number))
    rows = [row | ({"objects": detection_objects([], [])} if at in EMPTY else {}) for at, row in enumerate(split)]
    return Dataset.from_list(rows, features=split.features)


def make_trainer(folder: Path, number: int, size: int, micro: int) -> DetrTrainer:
    """Make a trainer whose first epoch is one step, without dropout, which depends on the division of the images."""
    split = images(number)
    torch.manual_seed(0)
    config = tiny_config(names=tuple(class_names(split)))
    config.dropout = config.attention_dropout = config.activation_dropout = 0.0
    model = DetrForObjectDetection(config).double()
    model.register_forward_pre_hook(_in_double, with_kwargs=True)
    set_trainable(model, [])
    processor = DetrImageProcessor(
        size={"max_height": 64, "max_width": 64}
    )  # without a canvas: the scenes have several shapes
    settings = TrainSettings(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=size // micro,
        max_grad_norm=1e9,
    )
    trainer = DetrTrainer(
        model, detr_criterion(), split, None, settings,
        processor=processor, transform=TrainTransform(ImageFormat.of(processor)), display=PlainDisplay(list[str]().append),
    )  # fmt: skip
    trainer.setup()
    return trainer


def _in_double(_: object, arguments: Any, inputs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, inputs | {"pixel_values": inputs["pixel_values"].double()}


TERMS = (
    "loss", "cardinality", "class_accuracy", "matched_iou", "left_out", "no_object_share", "changed_between_layers", "gradient_share",
)  # fmt: skip


def first_step(trainer: DetrTrainer) -> dict[str, torch.Tensor]:
    """Return the logged terms and the gradients before the optimizer step, of the only step."""
    gradients: dict[str, torch.Tensor] = {}

    def record(*_: object) -> None:
        named = trainer.model.named_parameters()
        gradients.update({name: value.grad.detach().cpu().clone() for name, value in named if value.grad is not None})

    trainer.stepper.optimizer.optimizer.register_step_pre_hook(record)
    log = trainer.train().log
    terms = {name: torch.tensor(value) for name, value in log[0].items() if name.startswith(TERMS)}
    return gradients | terms


def main(out: str, number: int, size: int, micro: int) -> None:
    torch.set_num_threads(1)
    trainer = make_trainer(Path(out).with_suffix(""), number, size, micro)
    result = first_step(trainer)
    if trainer.accelerator.is_main_process:
        torch.save(result, out)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
